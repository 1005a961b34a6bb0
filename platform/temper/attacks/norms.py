"""What differs between norms: how far a point may go, which way is steepest, where to start.

Everywhere ``images`` and ``perturbation`` are (B,C,H,W), distances in pixel units of [0,1].
"""

import torch
from torch import Tensor

from temper.spec import Norm


def project(norm: Norm, perturbed: Tensor, images: Tensor, eps: float) -> Tensor:
    """The nearest points within ``eps`` of ``images``, then clipped to [0,1]."""
    perturbation = perturbed - images
    if norm == "linf":
        perturbation = perturbation.clamp(-eps, eps)
    else:
        lengths = _lengths(perturbation)
        perturbation = perturbation * (eps / lengths.clamp_min(1e-12)).clamp_max(1.0)
    return (images + perturbation).clamp(0, 1)


def steepest(norm: Norm, gradient: Tensor) -> Tensor:
    """The direction of unit length in ``norm`` that raises the loss most; zero where there is no gradient."""
    gradient = torch.nan_to_num(gradient, nan=0.0, posinf=0.0, neginf=0.0)
    if norm == "linf":
        return gradient.sign()
    return gradient / _lengths(gradient).clamp_min(1e-12)


def random_point(norm: Norm, images: Tensor, eps: float, generator: torch.Generator | None) -> Tensor:
    """A point drawn uniformly from each image's ``eps``-ball, clipped to [0,1]."""
    if norm == "linf":
        noise = torch.empty_like(images).uniform_(-eps, eps, generator=generator)
        return (images + noise).clamp(0, 1)
    direction = torch.empty_like(images).normal_(generator=generator)
    direction = direction / _lengths(direction).clamp_min(1e-12)
    radii = torch.rand(len(images), 1, 1, 1, device=images.device, generator=generator)
    return (images + direction * eps * radii ** (1 / images[0].numel())).clamp(0, 1)


def _lengths(vectors: Tensor) -> Tensor:
    lengths: Tensor = torch.linalg.vector_norm(vectors, dim=(1, 2, 3), keepdim=True)
    return lengths
