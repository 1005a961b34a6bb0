"""What all hardening methods share: how they attack, and the loss of the attacked images."""

from collections.abc import Callable
from typing import ClassVar, Literal

from pydantic import Field
from torch import Tensor

from temper.attacks import Attack
from temper.hardening.eps_schedules import AnyEpsSchedule, ConstantEps
from temper.spec import Spec

CrossEntropy = Callable[[Tensor, Tensor], Tensor]
"""Logits (B,C) and labels, classes (B,) or shares (B,C), to a task's mean loss as the objective has it."""


class AWP(Spec):
    """Adversarial weight perturbation. Wu et al. 2020, arXiv:2004.05884.

    Before each update the weights take one step of ascent, ``gamma`` times the norm of each weight tensor;
    the gradient is taken there. The paper uses 0.01 with PGD, and 0.005 with TRADES.
    """

    gamma: float = Field(default=0.01, gt=0, lt=1)
    start_frac: float = Field(default=0.0, ge=0, lt=1)
    """Share of the run after which it begins."""


class Adversary(Attack):
    """An attack and the training loss that uses it."""

    tasks: Literal["target", "source", "both"] = "target"
    """Which tasks are trained under attack."""
    eps_schedule: AnyEpsSchedule = ConstantEps()
    attack_batch_norm: Literal["eval", "train"] = "eval"
    """BatchNorm statistics while the attack runs; it never changes the running ones."""

    needs_clean: ClassVar[bool] = False
    """Whether the loss also reads the logits of the clean images."""
    needs_classes: ClassVar[bool] = False
    """Whether labels must be classes, not shares of mixed images."""

    @property
    def attacked_tasks(self) -> tuple[str, ...]:
        """``tasks`` as names."""
        return ("target", "source") if self.tasks == "both" else (self.tasks,)

    @property
    def num_updates(self) -> int:
        """Optimizer steps that a batch is used for."""
        return 1

    def awp_at(self, progress: float) -> AWP | None:
        """The perturbation of the weights at ``progress`` 0..1 of the run, if any."""
        return None

    def at(self, progress: float) -> "Adversary":
        """The adversary at ``progress`` 0..1 of the run, as its eps schedule says."""
        return self.scaled(self.eps_schedule.factor(progress))

    def loss(
        self, clean: Tensor | None, attacked: Tensor, labels: Tensor, cross_entropy: CrossEntropy
    ) -> Tensor:
        """The mean loss of a task from logits (B,C) of its clean and of its adversarial images.

        ``clean`` is given where ``needs_clean``. Here: the cross-entropy of the adversarial images alone
        (Madry et al. 2018, arXiv:1706.06083).
        """
        return cross_entropy(attacked, labels)


class WeightPerturbing(Adversary):
    """An adversary that may perturb the weights too."""

    awp: AWP | None = None

    def awp_at(self, progress: float) -> AWP | None:
        return self.awp if self.awp is not None and progress >= self.awp.start_frac else None
