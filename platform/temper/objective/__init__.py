"""What a run minimises: mean CE(target) + alpha * source term, each under attack if asked."""

from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from temper.hardening import AnyAdversary, CrossEntropy
from temper.objective.alpha_schedules import (
    AnyAlphaSchedule,
    ConstantAlpha,
    CosineAlpha,
    LinearAlpha,
    ProgressAlpha,
)
from temper.objective.source_terms import L2SP, AnySourceTerm, LwF, NoSource, Replay, SourceTerm
from temper.spec import Spec

__all__ = [
    "L2SP",
    "ConstantAlpha",
    "CosineAlpha",
    "LinearAlpha",
    "LwF",
    "NoSource",
    "Objective",
    "ProgressAlpha",
]


class Objective(Spec):
    """The joint transfer objective, and the adversary that hardens it.

    ``alpha`` weights only the source term; at 0 the source is not read. ``adversary`` replaces the images by
    adversarial examples, or adds these; ``null`` trains on clean images.
    """

    alpha: float = Field(default=0.0, ge=0, le=100)
    alpha_schedule: AnyAlphaSchedule = ConstantAlpha()
    source_term: AnySourceTerm = Replay()
    adversary: AnyAdversary | None = None
    class_weights: Literal["balanced"] | None = None
    label_smoothing: float = Field(default=0.0, ge=0, lt=1)

    @property
    def term(self) -> SourceTerm:
        """The source term in use: none if alpha is 0."""
        return self.source_term if self.alpha > 0 else NoSource()

    @property
    def uses_source(self) -> bool:
        """Whether source images are used."""
        return self.term.reads_source

    @property
    def trained_heads(self) -> tuple[str, ...]:
        """Tasks whose heads take part in the loss."""
        return ("target", "source") if self.term.trains_source_head else ("target",)

    @property
    def updates_per_batch(self) -> int:
        """Optimizer steps that a batch is used for."""
        return 1 if self.adversary is None else self.adversary.num_updates

    def alpha_at(self, progress: float) -> float:
        """The weight of the source term at ``progress`` 0..1 of the run."""
        return self.alpha * self.alpha_schedule.factor(progress)

    def cross_entropy(self, class_weights: Tensor | None = None) -> CrossEntropy:
        """The mean loss of a task from logits (B,C) and labels (B,) or (B,C).

        ``class_weights`` (C,) weighs the classes.
        """

        def mean_loss(logits: Tensor, labels: Tensor) -> Tensor:
            return F.cross_entropy(logits, labels, class_weights, label_smoothing=self.label_smoothing)

        return mean_loss

    def target_class_weights(self, class_counts: list[int]) -> Tensor | None:
        """Weights (C,) inverse to the class counts with mean 1 over the images, or ``None``."""
        if self.class_weights is None:
            return None
        counts = torch.tensor(class_counts, dtype=torch.float32)
        return counts.sum() / (len(class_counts) * counts)
