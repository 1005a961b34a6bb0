"""Gates: checks that block a number which cannot be trusted.

Add one: a function in a file of this package that returns a ``GateRecord``, and its call in ``run_gates``.
"""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from temper.evaluation.cascade import LabelledImages
from temper.evaluation.found import Found
from temper.evaluation.gates.model import check_model
from temper.evaluation.gates.outcomes import check_outcomes
from temper.evaluation.passes import HeldModel
from temper.evaluation.plan import EvaluationPlan
from temper.records import GateRecord

__all__ = ["run_gates"]

NUM_IMAGES = 32
"""For the gates on the model itself."""


def run_gates(
    model: HeldModel,
    data: LabelledImages,
    found: Found,
    plan: EvaluationPlan,
    device: torch.device,
    relatives: Mapping[str, Callable[[Tensor], Tensor]],
) -> list[GateRecord]:
    """Every gate; adversarial examples that they find are added to ``found``."""
    few = slice(0, NUM_IMAGES)
    images, labels = data.images[few].to(device).float() / 255, data.labels[few].to(device)
    return [*check_model(model.model, images, labels), *check_outcomes(found)]
