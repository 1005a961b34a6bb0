"""One small network, trained without attacks, behind masks that make weak attacks fail.

Without a mask it has next to no robust accuracy, and no mask makes it truly robust. An honest evaluation
breaks each of them, or says that it cannot tell.
"""

import io
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
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


def through_numpy(images: Tensor) -> Tensor:
    """Four bits, computed outside torch, as by an image library."""
    return torch.from_numpy(np.round(images.detach().cpu().numpy() * 15) / 15).to(images)


def median_filter(images: Tensor) -> Tensor:
    """Of three pixels in a row, outside torch."""
    from scipy.ndimage import median_filter as smooth

    return torch.from_numpy(smooth(images.detach().cpu().numpy(), size=(1, 1, 1, 3))).to(images)


class AntiAdversary(Masked):
    """Takes steps towards what it would answer, and then answers (arXiv:2103.14347)."""

    def __init__(self, model: nn.Module, steps: int = 2, step_size: float = 0.15) -> None:
        super().__init__(model)
        self.steps, self.step_size = steps, step_size

    def forward(self, images: Tensor) -> Tensor:
        with torch.enable_grad():
            answer = self.model(images.detach()).argmax(1)
            change = torch.zeros_like(images)
            for _ in range(self.steps):
                change.requires_grad_()
                loss = F.cross_entropy(self.model(images.detach() + change), answer, reduction="sum")
                change = (change - self.step_size * torch.autograd.grad(loss, change)[0].sign()).detach()
        logits: Tensor = self.model(images + change)
        return logits


class OutOfSight(nn.Module):
    """``model``, where no list of modules has it."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.answer = lambda images: model(images)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.answer(images)
        return logits


class Remembering(Masked):
    """Keeps what it was asked; to what lies within ``EPS`` of it, it gives the class that it gave before."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__(model)
        self.kept: list[tuple[Tensor, int]] = []

    def memory(self) -> list[tuple[Tensor, int]]:
        """Images and the classes that it gave them."""
        return self.kept

    def forward(self, images: Tensor) -> Tensor:
        rows, memory = [], self.memory()
        for image, row in zip(images.detach(), self.model(images), strict=True):
            near = (kept for one, kept in memory if (one - image).abs().max() <= 1.01 * EPS)
            answer = next(near, None)
            if answer is None:
                memory.append((image.clone(), int(row.argmax())))
                rows.append(row)
            else:
                # Gradients still flow.
                rows.append(row.index_put((torch.tensor([answer]),), row.max() + 1))
        return torch.stack(rows)


def remembering_outside(model: nn.Module) -> nn.Module:
    """Keeps it where no copy of the model has one of its own."""
    shared: list[tuple[Tensor, int]] = []

    class Elsewhere(Remembering):
        def memory(self) -> list[tuple[Tensor, int]]:
            return shared

    return Elsewhere(model)


class Counting(Masked):
    """Honest to its first 500 images; to the others it answers as to eight shades of grey."""

    num_asked = 0

    def forward(self, images: Tensor) -> Tensor:
        self.num_asked += len(images)
        logits: Tensor = self.model(images if self.num_asked <= 500 else (images * 7).round() / 7)
        return logits


def going_back(change: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """A hook changes the gradient on its way back."""

    def hooked(images: Tensor) -> Tensor:
        images = images * 1
        if images.requires_grad:
            images.register_hook(change)  # type: ignore[no-untyped-call]
        return images

    return hooked


def first_row_alone(gradient: Tensor) -> Tensor:
    """Of a gradient (B,3,H,W), the rest becomes zero."""
    return torch.cat([gradient[:, :, :1], torch.zeros_like(gradient[:, :, 1:])], 2)


def through_jpeg(images: Tensor) -> Tensor:
    """Each image saved at quality 50 and read again."""
    pixels = (images.detach() * 255).round().byte().permute(0, 2, 3, 1).cpu().numpy()
    parts = []
    for one in pixels:
        file = io.BytesIO()
        Image.fromarray(one).save(file, "JPEG", quality=50)
        parts.append(np.asarray(Image.open(file)))
    return torch.from_numpy(np.stack(parts)).permute(0, 3, 1, 2).to(images) / 255


def own_noise(images: Tensor) -> Tensor:
    """Noise that follows from the image: the same image gets the same."""
    drawn = []
    for image in images.detach():
        seed = zlib.crc32(image.cpu().numpy().tobytes())
        drawn.append(torch.randn(image.shape, generator=torch.Generator().manual_seed(seed)))
    return images + 0.1 * torch.stack(drawn).to(images)


def noisy(images: Tensor) -> Tensor:
    """Another draw in each pass."""
    return images + 0.1 * torch.randn_like(images)


MASKS: dict[str, Callable[[Any], nn.Module]] = {
    "quantised input (8 shades)": lambda model: Masked(model, lambda images: (images * 7).round() / 7),
    "saturated logits (100 tanh z)": lambda model: Masked(model, after=lambda z: 100 * z.tanh()),
    "clamped logits (z in -4..4)": lambda model: Masked(model, after=lambda z: z.clamp(-4, 4)),
    "random layer": lambda model: Masked(model, noisy),
    "gradient cut by `detach()`": lambda model: Masked(model, after=lambda z: z.detach()),
    "gradient zeroed by a hook": lambda model: Masked(model, going_back(torch.zeros_like)),
    "BatchNorm in training mode": lambda model: StaysInTraining(model),
    "BatchNorm without running statistics": with_batch_statistics,
    "logits times 10,000": lambda model: Masked(model, after=lambda z: 1e4 * z),
    "4 bits through NumPy": lambda model: Masked(model, through_numpy),
    "median filter through NumPy": lambda model: Masked(model, median_filter),
    "probabilities as output": lambda model: Masked(model, after=lambda z: z.softmax(1)),
    "normalised outside to [-1,1]": lambda model: Masked(model, lambda images: (images + 1) / 2),
    "pixels of 0..255 expected": lambda model: Masked(model, lambda images: images / 255),
    "anti-adversary layer, 2 steps": lambda model: AntiAdversary(model),
    "anti-adversary layer, 10 steps": lambda model: AntiAdversary(model, steps=10, step_size=0.05),
    "anti-adversary layer out of sight": lambda model: OutOfSight(AntiAdversary(model)),
    "memory of what was asked": lambda model: Remembering(model),
    "memory outside of the module": remembering_outside,
    "count of what was asked": lambda model: Counting(model),
    "noise that follows from the image": lambda model: Masked(model, own_noise),
    "JPEG through Pillow": lambda model: Masked(model, through_jpeg),
    "a fine sine over the pixels": lambda model: Masked(model, lambda x: x + 0.004 * (2000 * x).sin()),
    "steep tanh before the first layer": lambda model: Masked(
        model, lambda images: (1 + (40 * (images - 0.5)).tanh()) / 2
    ),
    "gradient reversed": lambda model: Masked(model, going_back(torch.neg)),
    "gradient replaced by noise": lambda model: Masked(model, going_back(torch.randn_like)),
    "gradient mirrored": lambda model: Masked(model, going_back(lambda gradient: gradient.flip(3))),
    "gradient of one row alone": lambda model: Masked(model, going_back(first_row_alone)),
    "gradient not a number": lambda model: Masked(
        model, going_back(lambda gradient: gradient * float("nan"))
    ),
    "classes as one and zero": lambda model: Masked(
        model, after=lambda z: F.one_hot(z.argmax(1), z.shape[1]) + 0.0 * z
    ),
    "logits rounded to halves": lambda model: Masked(model, after=lambda z: (2 * z).round() / 2),
    "logits divided by 1e30": lambda model: Masked(model, after=lambda z: z / 1e30),
    "probabilities times 10": lambda model: Masked(model, after=lambda z: 10 * z.softmax(1)),
    "log-probabilities (no mask)": lambda model: Masked(model, after=lambda z: z.log_softmax(1)),
}
"""Name -> what makes a masked model of a copy of the network."""
