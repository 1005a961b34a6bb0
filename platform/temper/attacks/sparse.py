"""The geometry of L1 where [0,1] counts too: the ball cut by the range of pixels.

Croce and Hein 2021, arXiv:2103.01208.
"""

import torch
from torch import Tensor


def project_in_range(perturbed: Tensor, images: Tensor, eps: Tensor) -> Tensor:
    """The nearest points that are both within L1 ``eps`` (B,1,1,1) of ``images`` and in [0,1].

    Projecting first and clipping afterwards ends inside both, but not at the nearest point: it wastes what
    the clipping took. With room r for each coordinate the nearest perturbation is
    sign(d) clamp(|d| - t, 0, r) for the least t >= 0 that brings its length down to eps.
    """
    wanted = (perturbed - images).flatten(1)
    flat = images.flatten(1)
    room, sizes = torch.where(wanted > 0, 1 - flat, flat), wanted.abs()
    shrink = _shrinkage(sizes, room, eps.flatten(1))
    kept = torch.minimum((sizes - shrink).clamp_min(0), room)
    return (images + (wanted.sign() * kept).view_as(images)).clamp(0, 1)


def _shrinkage(sizes: Tensor, room: Tensor, eps: Tensor) -> Tensor:
    """(B,1): the least t >= 0 with sum clamp(sizes - t, 0, room) <= eps.

    As t grows, that sum is level until ``sizes - room`` is reached, then falls with slope 1 for each
    coordinate until ``sizes``. Sorting these bends gives the sum at each; between two it is a line.
    """
    bends, order = torch.cat([sizes - room, sizes], dim=1).sort(dim=1)
    slopes = torch.where(order < sizes.shape[1], -1.0, 1.0).to(sizes.dtype).cumsum(1)
    falls = (slopes[:, :-1] * bends.diff(dim=1)).cumsum(1)
    sums = room.sum(1, keepdim=True) + torch.nn.functional.pad(falls, (1, 0))
    last = ((sums > eps).sum(1, keepdim=True) - 1).clamp_min(0)
    slope = slopes.gather(1, last).clamp_max(-1)
    shrink = bends.gather(1, last) + (eps - sums.gather(1, last)) / slope
    # Thousands of additions leave an error; one more step along the same line, from an exact sum, mends it.
    excess = torch.minimum((sizes - shrink).clamp_min(0), room).sum(1, keepdim=True) - eps
    fits = torch.minimum(sizes, room).sum(1, keepdim=True) <= eps
    return (shrink - excess / slope).masked_fill(fits, 0.0).clamp_min(0)


def sparse_direction(gradient: Tensor, counts: Tensor) -> Tensor:
    """Signs of the ``counts`` (B,) largest coordinates of each gradient, of L1 length 1; zero without one."""
    flat = torch.nan_to_num(gradient, nan=0.0, posinf=0.0, neginf=0.0).flatten(1)
    falling = flat.abs().sort(dim=1, descending=True).values
    places = counts.long().clamp(1, flat.shape[1]) - 1
    signs = flat.sign() * (flat.abs() >= falling.gather(1, places[:, None]))
    return (signs / signs.abs().sum(1, keepdim=True).clamp_min(1)).view_as(gradient)
