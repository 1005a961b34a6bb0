"""Position embeddings of vision transformers, resampled from one image size to another."""

import logging
from collections.abc import Mapping
from functools import cache
from math import isqrt

import torch
from torch import Tensor, nn

NAMES = ("pos_embed", "pos_embedding", "position_embeddings")
"""Last names under which they lie: (1,N,D), class and other tokens before the patches."""
MAX_TOKENS = 8
"""Tokens before those of the patches."""

logger = logging.getLogger(__name__)


def resample_positions(tensors: Mapping[str, Tensor], network: nn.Module, where: str) -> dict[str, Tensor]:
    """``tensors`` with position embeddings for the grid of patches that ``network`` has.

    Bicubic, as timm and torchvision do it. What is no square grid of the same width stays as it is.
    """
    expected, found = network.state_dict(), dict(tensors)
    for name, tensor in tensors.items():
        if name not in expected or not differs_in_grid(name, tensor, expected[name]):
            continue
        num_tokens, theirs = _grid(tensor)
        _, ours = _grid(expected[name])
        patches = tensor[:, num_tokens:].float().reshape(1, theirs, theirs, -1).permute(0, 3, 1, 2)
        resized = nn.functional.interpolate(patches, (ours, ours), mode="bicubic", antialias=True)
        resized = resized.permute(0, 2, 3, 1).flatten(1, 2).to(tensor.dtype)
        found[name] = torch.cat([tensor[:, :num_tokens], resized], 1)
        _say(
            f"model.weights: {where}: {name} is resampled from {theirs} x {theirs} patches to {ours} x {ours}"
        )
    return found


def differs_in_grid(name: str, theirs: Tensor, ours: Tensor) -> bool:
    """Whether both are position embeddings that differ in nothing but the size of their grid."""
    if name.rpartition(".")[2] not in NAMES or theirs.ndim != 3 or ours.ndim != 3:
        return False
    if theirs.shape == ours.shape or theirs.shape[::2] != ours.shape[::2] or len(theirs) != 1:
        return False
    (num_theirs, side), (num_ours, our_side) = _grid(theirs), _grid(ours)
    return num_theirs == num_ours <= MAX_TOKENS and min(side, our_side) > 0


def _grid(positions: Tensor) -> tuple[int, int]:
    """Tokens before the patches, and the side of the square that these are."""
    side = isqrt(positions.shape[1])
    return positions.shape[1] - side**2, side


@cache
def _say(message: str) -> None:
    """Once in a process, which may build a model several times."""
    logger.warning("%s", message)
