"""Which backbones a weights file fits, where it does not fit the recipe's."""

import difflib
from collections.abc import Mapping
from importlib.util import find_spec

import torch
from torch import Tensor

from temper.models.backbones import backbone_names, build_backbone
from temper.models.positions import differs_in_grid
from temper.models.timm_networks import PREFIX
from temper.models.weight_entries import sort_entries

NUM_TRIED = 8
SIZES = {192: "tiny", 384: "small", 768: "base", 1024: "large", 1280: "huge"}
"""What timm calls a vision transformer of this width."""


def fitting_backbones(tensors: Mapping[str, Tensor], backbone: str, image_size: int) -> list[str]:
    """Backbones whose names and shapes are those of ``tensors``, of those named like ``backbone``."""
    found = []
    for name in _candidates(tensors, backbone):
        try:
            if _fits(tensors, name, image_size):
                found.append(name)
        except Exception:  # noqa: S112  # each network has its own ways to refuse a size or a file
            continue
    return found


def _candidates(tensors: Mapping[str, Tensor], backbone: str) -> list[str]:
    own = backbone.removeprefix(PREFIX)
    ours, theirs = backbone_names(), []
    if find_spec("timm") is not None:
        import timm

        theirs = timm.list_models()
    near = [own, *difflib.get_close_matches(own, ours, NUM_TRIED, 0.5)]
    near += [f"{PREFIX}{name}" for name in (own, *difflib.get_close_matches(own, theirs, NUM_TRIED, 0.5))]
    known = {*ours, *(f"{PREFIX}{name}" for name in theirs)} - {backbone}
    return [name for name in dict.fromkeys(near + _transformers(tensors)) if name in known]


def _transformers(tensors: Mapping[str, Tensor]) -> list[str]:
    """Vision transformers by the shape of their first layer: (width, 3, patch, patch)."""
    for ending in ("patch_embed.proj.weight", "conv_proj.weight"):
        for name, tensor in tensors.items():
            if name.endswith(ending) and tensor.ndim == 4:
                size, patch = SIZES.get(len(tensor), ""), tensor.shape[-1]
                return [
                    f"{PREFIX}vit_{size}_patch{patch}_224",
                    f"{PREFIX}deit_{size}_patch{patch}_224",
                    f"vit_{size[:1]}_{patch}",
                ]
    return []


def _fits(tensors: Mapping[str, Tensor], name: str, image_size: int) -> bool:
    with torch.device("meta"):  # shapes alone
        network = build_backbone(name, image_size).module
    expected = network.state_dict()
    entries = sort_entries(tensors, network, name).backbone
    counters = {name for name in expected if name.endswith("num_batches_tracked")}
    return entries.keys() | counters == expected.keys() | counters and all(
        tensor.shape == expected[own].shape or differs_in_grid(own, tensor, expected[own])
        for own, tensor in entries.items()
        if own not in counters
    )
