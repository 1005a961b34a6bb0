"""The geometry of L0: a pixel counts once, however many of its channels change.

Foolbox counts coordinates instead, and can't cut a perturbation to a number of them.
"""

import torch
from torch import Tensor


def pixels_changed(clean: Tensor, perturbed: Tensor) -> Tensor:
    """(B,) int64: at how many places the images (B,3,H,W) differ in any channel."""
    return (clean != perturbed).any(1).flatten(1).sum(1)


def within_pixels(clean: Tensor, perturbed: Tensor, count: float) -> Tensor:
    """``perturbed``, but the clean image where more than ``count`` pixels differ."""
    allowed = pixels_changed(clean, perturbed) <= count
    return torch.where(allowed.view(-1, 1, 1, 1), perturbed, clean)


def project_pixels(perturbed: Tensor, clean: Tensor, counts: Tensor) -> Tensor:
    """The nearest points (in L2) in [0,1] that differ from ``clean`` (B,3,H,W) in ``counts`` (B,) pixels.

    Within the box a pixel's best value is its clipped one. It brings the point nearer by
    |z|^2 - |z - clip(z)|^2, z being what was asked for, so the pixels where that is most are kept
    (Croce and Hein 2019, arXiv:1909.05040).
    """
    clipped = perturbed.clamp(0, 1)
    gain = ((perturbed - clean).square() - (perturbed - clipped).square()).sum(1).flatten(1)
    ranks = gain.argsort(dim=1, descending=True, stable=True).argsort(dim=1)
    kept = (ranks < counts[:, None]).view(-1, 1, *clean.shape[2:])
    return torch.where(kept, clipped, clean)
