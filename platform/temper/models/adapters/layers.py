"""Which layers of a backbone an adapter can take hold of."""

from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import AfterValidator, Field
from torch import nn

LayerKind = Literal["attention", "linear", "conv"]
"""``attention``: its projections, packed or not; ``linear``: all other linear layers; ``conv``: convolutions
that are dense, undilated and padded by zeros.
"""


def _each_once(kinds: tuple[LayerKind, ...]) -> tuple[LayerKind, ...]:
    if len(set(kinds)) != len(kinds):
        raise ValueError("each kind of layer at most once")
    return kinds


LayerKinds = Annotated[tuple[LayerKind, ...], Field(min_length=1), AfterValidator(_each_once)]


def packed_attention(module: nn.Module) -> bool:
    """Whether ``module`` is torch's attention with one matrix for queries, keys and values."""
    return isinstance(module, nn.MultiheadAttention) and module.in_proj_weight is not None


def fused_attention(module: nn.Module) -> bool:
    """Whether ``module`` is attention as timm (and many) write it: linear layers ``qkv`` and ``proj``."""
    parts = dict(module.named_children())
    qkv, proj = parts.get("qkv"), parts.get("proj")
    return (
        isinstance(getattr(module, "num_heads", None), int)
        and isinstance(qkv, nn.Linear)
        and isinstance(proj, nn.Linear)
        and qkv.out_features == 3 * proj.in_features
    )


def reads_its_weights(attention: nn.Module) -> bool:
    """Whether ``attention`` reads the weights of its layers and never calls them.

    Packed attention does, so does timm's where queries have a bias of their own (BEiT, EVA, Swin v2), and
    torchvision's Swin. A layer that peft puts there would be passed over without a word.
    """
    return packed_attention(attention) or (
        fused_attention(attention)
        and (
            getattr(attention, "q_bias", None) is not None
            or type(attention).__module__.startswith("torchvision.")
        )
    )


def find_layers(backbone: nn.Module, kinds: Sequence[LayerKind]) -> tuple[list[str], list[str]]:
    """Of these ``kinds``: names of the plain layers, and of the attentions that read their own weights.

    Subclasses of the plain layers are left out: some, such as the output of packed attention, are read and
    never called, and others standardise their weights, so that nothing can be added to them.
    """
    plain: list[str] = []
    attentions: list[str] = []
    projections: dict[str, bool] = {}
    for name, module in backbone.named_modules():
        if packed_attention(module) or fused_attention(module):
            is_read = reads_its_weights(module)
            projections |= {f"{name}.{part}".removeprefix("."): is_read for part in ("qkv", "proj")}
            if is_read and "attention" in kinds:
                attentions.append(name)
        elif type(module) is nn.Linear and not projections.get(name, False):
            if ("attention" if name in projections else "linear") in kinds:
                plain.append(name)
        elif type(module) is nn.Conv2d and "conv" in kinds and _is_ordinary(module):
            plain.append(name)
    return plain, attentions


def _is_ordinary(layer: nn.Conv2d) -> bool:
    """Whether peft's convolutions can follow it: they know no dilation, and merge no groups."""
    return layer.groups == 1 and set(layer.dilation) == {1} and layer.padding_mode == "zeros"
