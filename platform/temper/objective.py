"""What a run minimises: mean CE(target) + alpha * mean CE(source), each under attack if asked."""

from collections.abc import Mapping
from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from temper.attacks import AnyAttack
from temper.spec import Spec


class Objective(Spec):
    """The joint transfer objective, and the adversary that hardens its target term.

    ``alpha`` weighs the source loss and nothing else; at 0 the source is not read at all.
    ``adversary`` replaces the target images by its adversarial examples (Madry et al. 2018,
    arXiv:1706.06083); ``null`` trains on clean images.
    """

    alpha: float = Field(default=0.0, ge=0, le=100)
    adversary: AnyAttack | None = None
    class_weights: Literal["balanced"] | None = None
    label_smoothing: float = Field(default=0.0, ge=0, lt=1)

    @property
    def uses_source(self) -> bool:
        """Whether source images take part."""
        return self.alpha > 0

    def loss(
        self, logits: Mapping[str, Tensor], labels: Mapping[str, Tensor], target_weights: Tensor | None = None
    ) -> dict[str, Tensor]:
        """The scalar ``loss`` and its parts, from logits (B,C) and labels (B,) of each task.

        ``target_weights`` (C,) weighs the classes of the target.
        """
        target = F.cross_entropy(
            logits["target"], labels["target"], target_weights, label_smoothing=self.label_smoothing
        )
        if not self.uses_source:
            return {"loss": target, "target/loss": target}
        source = F.cross_entropy(logits["source"], labels["source"], label_smoothing=self.label_smoothing)
        return {"loss": target + self.alpha * source, "target/loss": target, "source/loss": source}

    def target_class_weights(self, class_counts: list[int]) -> Tensor | None:
        """Weights (C,) inverse to the class counts with mean 1 over the images, or ``None``."""
        if self.class_weights is None:
            return None
        counts = torch.tensor(class_counts, dtype=torch.float32)
        return counts.sum() / (len(class_counts) * counts)
