"""The smallest perturbation that fools a model, image by image."""

import torch
from torch import Tensor

from temper.attacks.apgd import apgd
from temper.attacks.ascent import Found, where
from temper.attacks.base import LogitsFn
from temper.attacks.losses import LossName, is_fooled
from temper.attacks.norms import distances, eps_per_image
from temper.spec import Norm

LINE_STEPS = 5
"""Halvings on the line from an image to a point that fools the model, each a forward pass."""


def minimum_norm(
    logits_fn: LogitsFn,
    images: Tensor,
    labels: Tensor,
    norm: Norm,
    upper: float | Tensor,
    *,
    rounds: int = 8,
    steps: int = 20,
    loss: LossName = "cross_entropy",
    generator: torch.Generator | None = None,
) -> tuple[Tensor, Tensor]:
    """Distances (B,) to the nearest points found that fool the model, and those points (B,3,H,W).

    Each image has its own ``eps``: after one attack at ``upper`` (a number, or (B,)), ``rounds`` of APGD with
    ``steps`` steps halve the interval between what failed and what fooled, in turn from the nearest point so
    far and from a random one. The distance is that of the returned point, at most ``upper`` up to float
    error: 0 with the image itself where it is misclassified anyway, infinite with the image itself where
    nothing within ``upper`` was found. It is an upper bound of the true minimum.

    Raises:
        UsageError: the loss is not defined for so few classes.
        ValueError: ``upper`` has another shape, or is negative.
    """
    high = eps_per_image(norm, upper, images).flatten()
    low = torch.zeros_like(high)
    nearest = images.clone()
    with torch.no_grad():
        wrong = is_fooled(logits_fn(images), labels)
    distance = torch.full_like(high, torch.inf).masked_fill(wrong, 0)
    searched = (~wrong).nonzero().flatten()
    for turn in range(rounds + 1):
        if len(searched) == 0:
            break
        eps = high[searched] if turn == 0 else (low[searched] + high[searched]) / 2
        # Where one kind of start fails, the interval is closed for good, so the next round tries the other.
        start = nearest[searched] if turn % 2 else None
        chosen = images[searched], labels[searched]
        found = apgd(logits_fn, *chosen, norm, eps, loss=loss, steps=steps, start=start, generator=generator)
        found.perturbed = _draw_near(logits_fn, *chosen, found)
        lengths = distances(norm, found.perturbed, chosen[0])
        nearest[searched] = where(found.fooled, found.perturbed, nearest[searched])
        distance[searched] = torch.where(found.fooled, lengths, distance[searched])
        high[searched] = torch.where(found.fooled, torch.minimum(lengths, high[searched]), high[searched])
        low[searched] = torch.where(found.fooled, low[searched], eps)
        searched = searched[found.fooled] if turn == 0 else searched
    return distance, nearest


@torch.no_grad()
def _draw_near(logits_fn: LogitsFn, images: Tensor, labels: Tensor, found: Found) -> Tensor:
    """The fooling points moved towards their images as far as the model stays fooled; others as they are."""
    rows = found.fooled.nonzero().flatten()
    perturbed = found.perturbed.clone()
    if len(rows) == 0:
        return perturbed
    clean, far = images[rows], perturbed[rows]
    low, high = torch.zeros(2, len(rows), 1, 1, 1, device=images.device, dtype=images.dtype)
    high = high + 1
    for _ in range(LINE_STEPS):
        middle = (low + high) / 2
        fooled = is_fooled(logits_fn(clean + middle * (far - clean)), labels[rows]).view(-1, 1, 1, 1)
        low, high = torch.where(fooled, low, middle), torch.where(fooled, middle, high)
    # Where nothing nearer did, exactly the point that was found: clean + (far - clean) may round elsewhere.
    perturbed[rows] = torch.where(high < 1, clean + high * (far - clean), far)
    return perturbed
