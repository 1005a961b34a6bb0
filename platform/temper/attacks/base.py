"""What every attack shares: its threat model, the gradient of the images, and how a model is held still."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Literal, Self

import torch
import torch.nn.functional as F
from pydantic import model_validator
from torch import Tensor, nn

from temper.attacks.norms import project, steepest
from temper.attacks.portions import images_at_once, portions
from temper.spec import Norm, Ratio, Spec, check_eps, format_ratio

LogitsFn = Callable[[Tensor], Tensor]
"""Images (B,3,H,W) in [0,1] to logits (B,C), each row from its image alone (or see ``images_at_once``)."""


@dataclass(frozen=True)
class AttackLoss:
    """What an attack raises: a loss of each image's logits."""

    logits_fn: LogitsFn
    loss_of: Callable[[Tensor, slice], Tensor]
    """Logits (K,C) of some images, and which of them these are, to the sum of their losses, a scalar."""

    def __call__(self, images: Tensor) -> Tensor:
        """The sum over all ``images`` (B,3,H,W)."""
        return self.loss_of(self.logits_fn(images), slice(0, len(images)))


class Attack(Spec):
    """A way to perturb images by at most ``eps`` (pixel units of [0,1]) in ``norm``."""

    kind: str
    norm: Norm = "linf"
    eps: Ratio

    @model_validator(mode="after")
    def _eps_in_pixel_units(self) -> Self:
        check_eps(self.norm, self.eps)
        return self

    @property
    def label(self) -> str:
        """A short name for tables, such as ``pgd 8/255``."""
        return f"{self.kind} {format_ratio(self.eps)}" + ("" if self.norm == "linf" else f" {self.norm}")

    def perturb(
        self, logits_fn: LogitsFn, images: Tensor, labels: Tensor, generator: torch.Generator | None = None
    ) -> Tensor:
        """Adversarial examples (B,3,H,W) in [0,1], detached, each within ``eps`` of its image.

        ``labels`` are classes (B,) int64, or their shares (B,C) where images are mixed.
        """
        raise AssertionError(f"{type(self).__name__} does not say how it perturbs")

    def scaled(self, factor: float) -> Self:
        """The same attack with ``eps`` times ``factor`` (0..1), and a fixed step size in proportion."""
        step_size = getattr(self, "step_size", None)
        steps = {} if step_size is None or factor == 0 else {"step_size": step_size * factor}
        return self if factor == 1 else self.model_copy(update={"eps": self.eps * factor, **steps})


def cross_entropy_of(logits_fn: LogitsFn, labels: Tensor) -> AttackLoss:
    """The loss of an untargeted attack on ``labels``."""
    return AttackLoss(logits_fn, lambda logits, rows: F.cross_entropy(logits, labels[rows], reduction="sum"))


def image_gradient(loss: AttackLoss, images: Tensor) -> Tensor:
    """The gradient of each image's loss with respect to that image; parameters get none."""
    gradients: list[Tensor] = []
    with torch.enable_grad():
        for rows in portions(len(images), images_at_once(loss.logits_fn, images)):
            part = images[rows].detach().requires_grad_()
            summed = loss.loss_of(loss.logits_fn(part), rows)
            gradients += torch.autograd.grad(summed, part)
    return gradients[0] if len(gradients) == 1 else torch.cat(gradients)


def ascend(
    loss: AttackLoss,
    norm: Norm,
    start: Tensor,
    images: Tensor,
    eps: float | Tensor,
    step_size: float,
    steps: int,
) -> Tensor:
    """``steps`` along the steepest direction of the loss, each projected back; detached."""
    perturbed = start
    for _ in range(steps):
        direction = steepest(norm, image_gradient(loss, perturbed), perturbed)
        perturbed = project(norm, perturbed + step_size * direction, images, eps)
    return perturbed.detach()


@contextmanager
def attack_mode(model: nn.Module, batch_norm: Literal["eval", "train"] = "eval") -> Iterator[None]:
    """Hold ``model`` still: parameters frozen, all modules in eval mode; restored exactly afterwards.

    Frozen parameters save a quarter of an attack's time, and eval statistics in BatchNorm make the
    stronger adversary (Pang et al. 2021, arXiv:2010.00467). With ``batch_norm`` ``train``, every BatchNorm
    that was in training mode uses the statistics of the batch, and its running ones are left as they were.
    """
    modes = [(module, module.training) for module in model.modules()]
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    with kept_statistics(model) if batch_norm == "train" else nullcontext():
        try:
            model.eval()
            if batch_norm == "train":
                for module, mode in modes:
                    module.training = mode and isinstance(module, nn.modules.batchnorm._BatchNorm)
            for parameter in trainable:
                parameter.requires_grad_(False)
            yield
        finally:
            for parameter in trainable:
                parameter.requires_grad_(True)
            for module, mode in modes:
                module.training = mode


@contextmanager
def kept_statistics(model: nn.Module) -> Iterator[None]:
    """Whatever runs inside, the BatchNorm statistics of ``model`` are bit for bit as before afterwards."""
    saved = [
        (buffer, buffer.detach().clone())
        for module in model.modules()
        if isinstance(module, nn.modules.batchnorm._BatchNorm)
        for buffer in module.buffers(recurse=False)
    ]
    try:
        yield
    finally:
        for buffer, value in saved:
            buffer.copy_(value)
