"""Gates: checks that block a number which cannot be trusted (docs/gates.md says what each looks at).

Add one: a function of ``Scene`` in a file of this package that returns a ``GateRecord``, and its call in
``run_gates``.
"""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from temper.batches import as_floats
from temper.evaluation.cascade import Batching, LabelledImages
from temper.evaluation.chunk_outcome import ChunkOutcome
from temper.evaluation.counted_model import HeldModel
from temper.evaluation.fresh import Fresh
from temper.evaluation.gates.base import Scene, inherit
from temper.evaluation.gates.front import without_front
from temper.evaluation.gates.gradients import zero_gradients
from temper.evaluation.gates.inputs import normalization_inside
from temper.evaluation.gates.limits import huge_eps, zero_eps
from temper.evaluation.gates.memory import no_memory
from temper.evaluation.gates.model import check_model
from temper.evaluation.gates.outcomes import check_outcomes
from temper.evaluation.gates.planted import planted_found
from temper.evaluation.gates.search import check_search
from temper.evaluation.plan import EvaluationPlan
from temper.evaluation.result import main_cascade
from temper.records import GateRecord

__all__ = ["run_gates"]

NUM_IMAGES = 32
"""For the gates on the model itself."""


def run_gates(
    model: HeldModel,
    data: LabelledImages,
    found: ChunkOutcome,
    plan: EvaluationPlan,
    device: torch.device,
    relatives: Mapping[str, Callable[[Tensor], Tensor]],
    fresh: Fresh | None,
) -> list[GateRecord]:
    """Every gate of the main threat model; adversarial examples that they find are added to ``found``.

    ``fresh`` makes copies of the model that were never queried; ``None`` if it cannot be copied.
    """
    main, data = main_cascade(found, plan), data.attacked_within(plan.main.threat)
    batching = Batching(plan.batch_size, device)
    scene = Scene(model, data, found, main, plan.main.suite, batching, plan.seed, relatives, fresh)
    few = as_floats(data.images[: min(NUM_IMAGES, plan.batch_size)], device)
    gates = check_model(model.model, few)
    if main.threat.norm not in ("l0", "semantic"):
        gates += [zero_eps(scene), planted_found(scene), zero_gradients(scene), huge_eps(scene)]
        # The last two after the others: what they find is not the suite's to find.
        gates += [*check_search(scene), without_front(scene), no_memory(scene)]
        _spread(found, scene)
    gates += check_outcomes(found, found.passes.num_not_finite + model.num_not_finite)
    return [*gates, normalization_inside(scene)]


def _spread(found: ChunkOutcome, scene: Scene) -> None:
    """What the gates found fell within larger balls of the same norm too."""
    for cascade in found.cascades:
        if cascade.threat.norm == scene.norm and cascade.threat.eps > scene.main.threat.eps:
            inherit(cascade, scene.main, "gate-carried")
