"""One small network, trained without attacks, behind masks that make weak attacks fail.

Without a mask it has next to no robust accuracy, and no mask makes it truly robust. An honest evaluation
breaks each of them, or says that it cannot tell.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from temper.models import ModelSpec, TaskModel, build_model

EPS = 0.2
"""Linf; one step of the digits' 17 shades of grey is 0.06."""


def load_digits() -> tuple[np.ndarray, np.ndarray]:
    """Images uint8 (1797,3,8,8) and labels int64 (1797,), in a fixed random order."""
    from sklearn import datasets

    digits = datasets.load_digits()
    order = np.random.default_rng(0).permutation(len(digits.target))
    images = np.round(digits.images[order] * 255 / 16).astype(np.uint8)
    return np.repeat(images[:, None], 3, axis=1), digits.target[order].astype(np.int64)


def train(images: np.ndarray, labels: np.ndarray, epochs: int = 6) -> TaskModel:
    """A resnet8, trained on clean images alone; in eval mode."""
    classes = {"target": [str(digit) for digit in range(10)]}
    model = build_model(ModelSpec(backbone="resnet8"), classes, image_size=8, seed=0)
    pixels, targets = torch.from_numpy(images).float() / 255, torch.from_numpy(labels)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, weight_decay=5e-4)
    generator = torch.Generator().manual_seed(0)
    for _ in range(epochs):
        for rows in torch.randperm(len(labels), generator=generator).split(64):
            optimizer.zero_grad()
            F.cross_entropy(model.train()(pixels[rows]), targets[rows]).backward()
            optimizer.step()
    return model.eval()


class Masked(nn.Module):
    """``model`` with something done to its images and its logits."""

    def __init__(
        self,
        model: nn.Module,
        before: Callable[[Tensor], Tensor] | None = None,
        after: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        super().__init__()
        self.model, self.before, self.after = model, before, after

    def forward(self, images: Tensor) -> Tensor:
        if self.before is not None:
            images = self.before(images)
        logits: Tensor = self.model(images)
        return logits if self.after is None else self.after(logits)


class StaysInTraining(Masked):
    """Its BatchNorm does not hear of ``eval()``."""

    def train(self, mode: bool = True) -> "StaysInTraining":
        super().train(mode)
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.training = True
        return self


def with_batch_statistics(model: nn.Module) -> nn.Module:
    """Its BatchNorm is in eval mode, but has no running statistics: it takes those of the batch."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.track_running_stats = False
            module.running_mean = module.running_var = None
    return model


def without_gradient(images: Tensor) -> Tensor:
    """A hook sets the gradient to zero on its way back."""
    images = images * 1
    if images.requires_grad:
        images.register_hook(torch.zeros_like)  # type: ignore[no-untyped-call]
    return images


def through_numpy(images: Tensor) -> Tensor:
    """Four bits, computed outside torch, as by an image library."""
    return torch.from_numpy(np.round(images.detach().cpu().numpy() * 15) / 15).to(images)


def median_filter(images: Tensor) -> Tensor:
    """Of three pixels in a row, outside torch."""
    from scipy.ndimage import median_filter as smooth

    return torch.from_numpy(smooth(images.detach().cpu().numpy(), size=(1, 1, 1, 3))).to(images)


def noisy(images: Tensor) -> Tensor:
    """Another draw in each pass."""
    return images + 0.1 * torch.randn_like(images)


MASKS: dict[str, Callable[[Any], nn.Module]] = {
    "quantised input (8 shades)": lambda model: Masked(model, lambda images: (images * 7).round() / 7),
    "saturated logits (100 tanh z)": lambda model: Masked(model, after=lambda z: 100 * z.tanh()),
    "clamped logits (z in -4..4)": lambda model: Masked(model, after=lambda z: z.clamp(-4, 4)),
    "random layer": lambda model: Masked(model, noisy),
    "gradient cut by `detach()`": lambda model: Masked(model, after=lambda z: z.detach()),
    "gradient zeroed by a hook": lambda model: Masked(model, without_gradient),
    "BatchNorm in training mode": lambda model: StaysInTraining(model),
    "BatchNorm without running statistics": with_batch_statistics,
    "logits times 10,000": lambda model: Masked(model, after=lambda z: 1e4 * z),
    "4 bits through NumPy": lambda model: Masked(model, through_numpy),
    "median filter through NumPy": lambda model: Masked(model, median_filter),
    "probabilities as output": lambda model: Masked(model, after=lambda z: z.softmax(1)),
    "normalised outside to [-1,1]": lambda model: Masked(model, lambda images: (images + 1) / 2),
    "pixels of 0..255 expected": lambda model: Masked(model, lambda images: images / 255),
    "log-probabilities (no mask)": lambda model: Masked(model, after=lambda z: z.log_softmax(1)),
}
"""Name -> what makes a masked model of a copy of the network."""
