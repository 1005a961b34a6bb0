"""Scores of single images: the model's confidence, and how unfamiliar an image is."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from temper.attacks import in_portions
from temper.batches import as_floats
from temper.errors import ModelError

SQUEEZED_LEVELS: Final = 32
"""5 bits, as Xu et al. take for colour images."""


@dataclass(frozen=True)
class Scores:
    """Of N images: ``logits`` (N,C) float64, and feature squeezing's distance ``squeezing`` (N,) in 0..2."""

    logits: Tensor
    squeezing: Tensor

    def confidence(self, temperature: float) -> Tensor:
        """(N,) the largest probability, in 0..1."""
        return (self.logits / temperature).softmax(1).amax(1)

    @property
    def energy(self) -> Tensor:
        """(N,) -log of the sum of exp(logits) (Liu et al. 2020, arXiv:2010.03759); low is familiar."""
        return -self.logits.logsumexp(1)

    def suspicion(self, temperature: float) -> dict[str, Tensor]:
        """Each score as (N,), the higher the less the answer should be trusted."""
        return {
            "confidence": -self.confidence(temperature),
            "energy": self.energy,
            "squeezing": self.squeezing,
        }


@torch.no_grad()
def score_images(
    model: Callable[[Tensor], Tensor],
    images: np.ndarray | Tensor,
    *,
    batch_size: int = 128,
    device: torch.device | str = "cpu",
) -> Scores:
    """Scores of uint8 images (N,3,H,W), or of float ones in [0,1], by a model in eval mode.

    Raises:
        ModelError: logits that are not finite.
    """
    logits, distances = [], []
    for start in range(0, len(images), batch_size):
        part = torch.as_tensor(np.ascontiguousarray(images[start : start + batch_size])).to(device)
        batch = as_floats(part) if part.dtype == torch.uint8 else part.float()
        answer = in_portions(model, batch).double()
        if not torch.isfinite(answer).all():
            raise ModelError("the model's logits are not finite (NaN or infinity): they mean nothing")
        logits.append(answer.cpu())
        distances.append(squeezing_distance(model, batch, answer).cpu())
    return Scores(torch.cat(logits), torch.cat(distances))


def squeezing_distance(model: Callable[[Tensor], Tensor], images: Tensor, logits: Tensor) -> Tensor:
    """(B,) how far the softmax moves (L1) when ``images`` are squeezed: the larger of two squeezers.

    Feature squeezing (Xu et al. 2018, arXiv:1704.01155): fewer bits, and a median over 2 x 2 pixels. A
    perturbation made for one image is undone by both; what the model sees of a clean image is not.
    """
    answer = logits.softmax(1)
    moved = [
        (in_portions(model, squeezed).double().softmax(1) - answer).abs().sum(1)
        for squeezed in (reduce_depth(images), median_smooth(images))
    ]
    return torch.maximum(*moved)


def reduce_depth(images: Tensor) -> Tensor:
    """``images`` in [0,1] with ``SQUEEZED_LEVELS`` values."""
    return (images * (SQUEEZED_LEVELS - 1)).round() / (SQUEEZED_LEVELS - 1)


def median_smooth(images: Tensor) -> Tensor:
    """The third smallest of each pixel, its left and its upper neighbour and the one between those.

    As SciPy's ``median_filter`` of size 2; at the border pixels count double.
    """
    padded = F.pad(images, (1, 0, 1, 0), mode="replicate")
    height, width = images.shape[-2:]
    shifted = [padded[..., y : y + height, x : x + width] for y in (0, 1) for x in (0, 1)]
    return torch.stack(shifted).sort(0).values[2]
