"""What every attack shares: its threat model, the gradient of the images, and how a model is held still."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Self

import torch
import torch.nn.functional as F
from pydantic import model_validator
from torch import Tensor, nn

from temper.spec import Norm, Ratio, Spec, check_eps, format_ratio

LogitsFn = Callable[[Tensor], Tensor]
"""Images (B,3,H,W) in [0,1] to logits (B,C)."""


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
        """Adversarial examples (B,3,H,W) in [0,1], detached, each within ``eps`` of its image."""
        raise AssertionError(f"{type(self).__name__} does not say how it perturbs")


def loss_gradient(logits_fn: LogitsFn, images: Tensor, labels: Tensor) -> Tensor:
    """The gradient of each image's cross-entropy with respect to that image; parameters get none."""
    with torch.enable_grad():
        images = images.detach().requires_grad_()
        loss = F.cross_entropy(logits_fn(images), labels, reduction="sum")
        return torch.autograd.grad(loss, images)[0]


@contextmanager
def attack_mode(model: nn.Module) -> Iterator[None]:
    """Hold ``model`` still: parameters frozen, all modules in eval mode; restored exactly afterwards.

    Frozen parameters save a quarter of an attack's time, and eval statistics in BatchNorm make the
    stronger adversary (Pang et al. 2021, arXiv:2010.00467).
    """
    modes = [(module, module.training) for module in model.modules()]
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    try:
        model.eval()
        for parameter in trainable:
            parameter.requires_grad_(False)
        yield
    finally:
        for parameter in trainable:
            parameter.requires_grad_(True)
        for module, mode in modes:
            module.training = mode
