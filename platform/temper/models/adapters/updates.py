"""Low-rank updates of attention that reads the weights of its layers and never calls them.

peft's own layer for torch's packed attention is not used. As of 0.21 its forward adds the update of the
output projection twice, and puts new parameters in the place of the base weights each time, off by a
rounding error: the optimizer and DDP lose them.
"""

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from temper.models.adapters.layers import packed_attention


class LowRankUpdate(nn.Module):
    """Weight (out,in) to weight + ``scaling`` * B A, with A (rank,in) and B (out,rank) of zeros."""

    def __init__(self, weight: Tensor, rank: int, lora_alpha: float) -> None:
        super().__init__()
        self.lora_A = nn.Parameter(weight.new_empty(rank, weight.shape[1]))
        self.lora_B = nn.Parameter(weight.new_zeros(weight.shape[0], rank))
        self.scaling = lora_alpha / rank
        nn.init.kaiming_uniform_(self.lora_A, a=math.sqrt(5))

    def forward(self, weight: Tensor) -> Tensor:
        return weight + self.scaling * (self.lora_B @ self.lora_A)


class SingularUpdate(nn.Module):
    """Weight (out,in) to weight + ``scaling`` * B diag(E) A, with singular values E (rank,1) of zeros."""

    def __init__(self, weight: Tensor, rank: int, lora_alpha: float) -> None:
        super().__init__()
        self.lora_A = nn.Parameter(weight.new_empty(rank, weight.shape[1]).normal_(std=0.02))
        self.lora_E = nn.Parameter(weight.new_zeros(rank, 1))
        self.lora_B = nn.Parameter(weight.new_empty(weight.shape[0], rank).normal_(std=0.02))
        self.scaling = lora_alpha / rank

    def forward(self, weight: Tensor) -> Tensor:
        return weight + self.scaling * (self.lora_B @ (self.lora_A * self.lora_E))


Update = type[LowRankUpdate] | type[SingularUpdate]


class UpdatedAttention(nn.Module):
    """``inner`` as it is, run with updated weights of its query-key-value and its output projections."""

    def __init__(self, inner: nn.Module, update: Update, rank: int, lora_alpha: float) -> None:
        super().__init__()
        self.inner = inner
        for layer, path in self._paths().items():
            self.add_module(layer, update(inner.get_parameter(path), rank, lora_alpha))

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return functional_call(self.inner, self._weights(), args, kwargs)

    @torch.no_grad()
    def merged(self) -> nn.Module:
        """``inner``, whose weights from now on hold the updates."""
        for name, weight in self._weights().items():
            self.inner.get_parameter(name).copy_(weight)
        return self.inner

    def _paths(self) -> dict[str, str]:
        """Projection -> name of its weight in ``inner``."""
        if packed_attention(self.inner):
            return {"in_proj": "in_proj_weight", "out_proj": "out_proj.weight"}
        return {"qkv": "qkv.weight", "proj": "proj.weight"}

    def _weights(self) -> dict[str, Tensor]:
        return {
            path: self.get_submodule(layer)(self.inner.get_parameter(path))
            for layer, path in self._paths().items()
        }


def update_attention(
    backbone: nn.Module, names: list[str], update: Update, rank: int, lora_alpha: float
) -> None:
    """Put an ``UpdatedAttention`` in the place of each named attention of ``backbone``."""
    for name in names:
        inner = backbone.get_submodule(name)
        updated = UpdatedAttention(inner, update, rank, lora_alpha).train(inner.training)
        backbone.set_submodule(name, updated)
