"""Learned keys and values that every query may attend to."""

import math
from typing import Any, Literal, cast

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from temper.models.adapters.base import Adapter
from temper.models.adapters.layers import fused_attention, packed_attention


class PrefixedAttention(nn.Module):
    """Frozen attention plus a gated attention over ``num_tokens`` learned keys and values.

    The output projection is linear, so what the prefix adds to the heads can be added behind it, and the
    attention itself stays as it is, whatever its implementation.
    """

    def __init__(self, inner: nn.Module, num_tokens: int) -> None:
        super().__init__()
        self.inner = inner
        weight = _output(inner).weight
        num_heads = cast(int, inner.num_heads)
        shape = (num_heads, num_tokens, weight.shape[1] // num_heads)
        self.prefix_key = nn.Parameter(torch.randn(shape).to(weight))
        self.prefix_value = nn.Parameter(torch.randn(shape).to(weight))
        self.gate = nn.Parameter(weight.new_zeros(num_heads, 1))

    def forward(self, tokens: Tensor, *args: Any, **kwargs: Any) -> Any:
        output = self.inner(tokens, *args, **kwargs)
        update = self._attend(tokens)
        return (output[0] + update, *output[1:]) if isinstance(output, tuple) else output + update

    def _attend(self, tokens: Tensor) -> Tensor:
        """Tokens (...,D) to what the prefix adds to each (...,D)."""
        num_heads, _, head_dim = self.prefix_key.shape
        queries = F.linear(tokens, *_query(self.inner))
        queries = queries.view(*tokens.shape[:-1], num_heads, head_dim)
        if isinstance(normalize := getattr(self.inner, "q_norm", None), nn.Module):
            queries = normalize(queries)
        scores = torch.einsum("...hd,hpd->...hp", queries, self.prefix_key) / math.sqrt(head_dim)
        heads = torch.einsum("...hp,hpd->...hd", scores.softmax(dim=-1), self.prefix_value)
        return F.linear((torch.tanh(self.gate) * heads).flatten(-2), _output(self.inner).weight)


class Prefix(Adapter):
    """``num_tokens`` learned keys and values in every attention, behind a gate per head.

    The form is LLaMA-Adapter's zero-initialised attention (Zhang et al. 2023, arXiv:2303.16199): a softmax of
    its own over the prefix, times tanh(gate). Prefix tuning proper (Li and Liang 2021, arXiv:2101.00190)
    shares one softmax with the image's tokens, takes weight from them, and so cannot start as the identity.
    """

    kind: Literal["prefix"] = "prefix"
    num_tokens: int = Field(default=8, ge=1, le=1024)

    @property
    def label(self) -> str:
        """Such as ``prefix(8)``."""
        return f"{self.kind}({self.num_tokens})"

    def attach(self, backbone: nn.Module) -> None:
        names = [
            name
            for name, module in backbone.named_modules()
            if name and (packed_attention(module) or fused_attention(module))
        ]
        if not names:
            self.refuse(backbone, "attention", "lora, bottleneck or norm_bias")
        for name in names:
            inner = backbone.get_submodule(name)
            backbone.set_submodule(name, PrefixedAttention(inner, self.num_tokens).train(inner.training))

    def trained_names(self, backbone: nn.Module) -> set[str]:
        return {
            f"{name}.{parameter}".removeprefix(".")
            for name, module in backbone.named_modules()
            if isinstance(module, PrefixedAttention)
            for parameter, _ in module.named_parameters(recurse=False)
        }

    def fold(self, backbone: nn.Module) -> nn.Module:
        self.refuse_to_fold("its keys and values are not weights of the attention")


def _query(attention: nn.Module) -> tuple[Tensor, Tensor | None]:
    """Weight (D,D) and bias (D,) that make queries."""
    weight: Tensor
    bias: Tensor | None
    if isinstance(attention, nn.MultiheadAttention):
        weight, bias = cast(Tensor, attention.in_proj_weight), attention.in_proj_bias
    else:
        packed = cast(nn.Linear, attention.get_submodule("qkv"))
        weight, bias = packed.weight, packed.bias
        if (own := getattr(attention, "q_bias", None)) is not None:  # timm's BEiT, EVA and Swin v2
            return weight[: len(own)], own
    width = len(weight) // 3
    return weight[:width], None if bias is None else bias[:width]


def _output(attention: nn.Module) -> nn.Linear:
    name = "out_proj" if isinstance(attention, nn.MultiheadAttention) else "proj"
    return cast(nn.Linear, attention.get_submodule(name))
