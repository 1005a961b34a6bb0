"""Training on adversarial examples alone: one step, or many."""

from typing import Literal, Self

from pydantic import Field, model_validator

from temper.attacks import FGSM, PGD, PatchPGD
from temper.hardening.base import Adversary, WeightPerturbing
from temper.spec import Ratio, Spec


class FGSMTraining(FGSM, Adversary):
    """One step of the gradient. Goodfellow et al. 2014, arXiv:1412.6572."""


class PGDTraining(PGD, WeightPerturbing):
    """Many steps; their examples replace the images. Madry et al. 2018, arXiv:1706.06083."""


class PatchTraining(PatchPGD, WeightPerturbing):
    """Patches at random places replace the images. Rao et al. 2020, arXiv:2005.02313."""


class Guard(Spec):
    """Watches for catastrophic overfitting: one-step training that suddenly fools only itself.

    After each epoch PGD attacks the epoch's first training batch; when robust accuracy is lower than after
    the epoch before by more than ``max_drop``, that epoch is discarded (Wong et al. 2020,
    arXiv:2001.03994). The fall may also take several epochs, up to ``window``, so this finds all that the
    authors' rule finds.
    """

    max_drop: float = Field(default=0.2, gt=0, lt=1)
    window: int = Field(default=5, ge=1, le=1000)
    """An epoch is compared with the best of this many epochs before it; 1 is the authors' rule. The best
    batch of a whole long run is luck, and against it an ordinary epoch looks like a collapse.
    """
    steps: int = Field(default=5, ge=1)
    """Number of PGD steps, each of eps / 4."""
    action: Literal["stop", "return"] = "stop"
    """``stop`` ends the run at the epoch before; ``return`` continues from there."""


class FastTraining(FGSM, Adversary):
    """Fast adversarial training: FGSM from a random start. Wong et al. 2020, arXiv:2001.03994.

    The paper's learning rate is ``optim.lr_schedule: cyclic``, and it attacks with BatchNorm in train mode.
    ``guard: null`` allows the overfitting.
    """

    kind: Literal["fast"] = "fast"  # type: ignore[assignment]
    random_start: bool = True
    attack_batch_norm: Literal["eval", "train"] = "train"
    guard: Guard | None = Guard()


class FreeTraining(Adversary):
    """Free adversarial training: each batch ``replays`` times, one pass for both gradients.

    Shafahi et al. 2019, arXiv:1904.12843. The perturbation is carried over from replay to replay and from
    batch to batch (anew each epoch), and BatchNorm is in the mode of the update. Each replay is an optimizer
    step, so a run of E epochs takes E / ``replays`` of them for the same number of steps.
    """

    kind: Literal["free"] = "free"
    replays: int = Field(default=4, ge=1, le=100)
    step_size: Ratio | None = Field(default=None, gt=0)
    """In pixel units; ``null``: eps."""

    @model_validator(mode="after")
    def _attacks_the_target_in_train_mode(self) -> Self:
        if self.tasks != "target":
            raise ValueError(f"kind 'free' attacks the target only, got tasks: {self.tasks}")
        return self

    @property
    def num_updates(self) -> int:
        return self.replays
