"""What differs between norms: how far a point may go, which way is steepest, where to start.

Everywhere ``images`` and ``perturbation`` are (B,C,H,W), distances in pixel units of [0,1]. ``eps`` is one
number, or one for each image (B,1,1,1).
"""

import torch
from torch import Tensor

from temper.attacks.draws import draw_like, draw_rows
from temper.spec import Norm, check_eps

L1_STEP_FRAC = 0.01
"""Share of an image's coordinates that one step in L1 moves (Tramer and Boneh 2019, arXiv:1904.13000)."""


def project(norm: Norm, perturbed: Tensor, images: Tensor, eps: float | Tensor) -> Tensor:
    """The nearest points within ``eps`` of ``images``, then clipped to [0,1].

    Clipping moves every coordinate towards the image, so the result stays in the ball.
    """
    perturbation = perturbed - images
    if norm == "linf":
        perturbation = perturbation.clamp(-eps, eps)  # type: ignore[arg-type]  # both numbers or both tensors
    elif norm == "l2":
        lengths = _lengths(norm, perturbation)
        perturbation = perturbation * (eps / lengths.clamp_min(1e-12)).clamp_max(1.0)
    else:
        excess = _l1_excess(perturbation, eps)
        perturbation = perturbation - perturbation.clamp(-excess, excess)
    return (images + perturbation).clamp(0, 1)


def _l1_excess(perturbation: Tensor, eps: float | Tensor) -> Tensor:
    """(B,1,1,1): by how much each coordinate must shrink for an L1 length of ``eps``; 0 inside the ball.

    Duchi et al. 2008: over the magnitudes in falling order it is (the sum of the first k - eps) / k for
    the k that are not shrunk to zero. That quotient rises up to this k and falls after it, so the k need
    not be searched: the excess is the maximum.
    """
    magnitudes = perturbation.abs().flatten(1).sort(dim=1, descending=True).values
    counts = torch.arange(1, magnitudes.shape[1] + 1, device=magnitudes.device)
    allowed = eps.flatten(1) if isinstance(eps, Tensor) else eps
    quotients = (magnitudes.cumsum(1) - allowed) / counts
    return quotients.amax(1).clamp_min(0).view(-1, 1, 1, 1)


def steepest(norm: Norm, gradient: Tensor, perturbed: Tensor | None = None) -> Tensor:
    """The direction of unit length in ``norm`` that raises the loss most; zero where there is no gradient.

    In L1 that would be a single coordinate; instead the ``L1_STEP_FRAC`` of an image's coordinates with
    the largest gradients move by the same amount (SLIDE, Tramer and Boneh 2019, arXiv:1904.13000). Given
    the points ``perturbed`` of the gradient, coordinates that would leave [0,1] are passed over.
    """
    gradient = torch.nan_to_num(gradient, nan=0.0, posinf=0.0, neginf=0.0)
    if norm == "linf":
        return gradient.sign()
    if norm == "l1":
        gradient = _largest(gradient if perturbed is None else _inward(gradient, perturbed)).sign()
    return gradient / _lengths(norm, gradient).clamp_min(1e-12)


def _largest(gradient: Tensor) -> Tensor:
    """``gradient`` with all but the largest coordinates of each image set to zero."""
    flat = gradient.flatten(1)
    chosen = flat.abs().topk(max(1, round(L1_STEP_FRAC * flat.shape[1])), dim=1).indices
    return torch.zeros_like(flat).scatter(1, chosen, flat.gather(1, chosen)).view_as(gradient)


def _inward(gradient: Tensor, perturbed: Tensor) -> Tensor:
    leaves = ((perturbed <= 0) & (gradient < 0)) | ((perturbed >= 1) & (gradient > 0))
    return gradient.masked_fill(leaves, 0.0)


def random_point(
    norm: Norm, images: Tensor, eps: float | Tensor, generator: torch.Generator | None
) -> Tensor:
    """A point drawn uniformly from each image's ``eps``-ball, clipped to [0,1]."""
    if norm == "linf":
        # Two ways to say it: the first is what runs with one eps have always drawn, bit for bit.
        if isinstance(eps, Tensor):
            noise = eps * draw_like(lambda t: t.uniform_(-1, 1, generator=generator), images, generator)
        else:
            noise = draw_like(lambda t: t.uniform_(-eps, eps, generator=generator), images, generator)
        return (images + noise).clamp(0, 1)
    if norm == "l1":
        return (images + eps * _in_unit_l1_ball(images, generator)).clamp(0, 1)
    direction = draw_like(lambda t: t.normal_(generator=generator), images, generator)
    direction = direction / _lengths(norm, direction).clamp_min(1e-12)
    radii = draw_rows(
        lambda count: torch.rand(count, 1, 1, 1, device=images.device, generator=generator),
        len(images),
        generator,
    )
    return (images + direction * eps * radii ** (1 / images[0].numel())).clamp(0, 1)


def _in_unit_l1_ball(images: Tensor, generator: torch.Generator | None) -> Tensor:
    """Laplace noise over its L1 length plus one exponential variable is uniform in the ball.

    Barthe et al. 2005, arXiv:math/0503650.
    """
    sizes = draw_like(lambda t: t.exponential_(generator=generator), images, generator)
    signs = draw_like(lambda t: t.uniform_(-1, 1, generator=generator), images, generator).sign()
    spare = draw_like(lambda t: t.exponential_(generator=generator), images[:, :1, :1, :1], generator)
    return signs * sizes / (_lengths("l1", sizes) + spare)


def distances(norm: Norm, perturbed: Tensor, images: Tensor) -> Tensor:
    """(B,) how far each point is from its image."""
    order = {"linf": float("inf"), "l2": 2, "l1": 1}[norm]
    lengths: Tensor = torch.linalg.vector_norm((perturbed - images).flatten(1), order, dim=1)
    return lengths


def eps_per_image(norm: Norm, eps: float | Tensor, images: Tensor) -> Tensor:
    """``eps``, a number or (B,), as (B,1,1,1) beside ``images``.

    Raises:
        ValueError: another shape, or an ``eps`` that cannot be meant in pixel units of [0,1].
    """
    if isinstance(eps, Tensor) and eps.numel() not in (1, len(images)):
        raise ValueError(f"eps is one number or one per image ({len(images)},), got {tuple(eps.shape)}")
    if isinstance(eps, Tensor) and not bool((eps.isfinite() & (eps >= 0)).all()):
        raise ValueError("eps is in pixel units of [0,1]: finite and not negative for every image")
    if not isinstance(eps, Tensor):
        check_eps(norm, eps)
    values = torch.as_tensor(eps, dtype=images.dtype, device=images.device).reshape(-1, 1, 1, 1)
    return values.expand(len(images), 1, 1, 1).clone()


def _lengths(norm: Norm, vectors: Tensor) -> Tensor:
    """(B,1,1,1) lengths in ``norm``, which is L1 or L2."""
    order = 1 if norm == "l1" else 2
    lengths: Tensor = torch.linalg.vector_norm(vectors, order, dim=(1, 2, 3), keepdim=True)
    return lengths
