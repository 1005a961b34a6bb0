"""Low-rank adaptation."""

from typing import Literal

from pydantic import Field
from torch import nn

from temper.models.adapters.base import Adapter, AdapterController
from temper.models.adapters.layers import LayerKinds, find_layers
from temper.models.adapters.low_rank import (
    exact_pattern,
    factor_names,
    factors,
    import_peft,
    inject,
    low_rank_layers,
    merged,
)
from temper.models.adapters.updates import LowRankUpdate, update_attention


class LoRA(Adapter):
    """W + lora_alpha / rank * B A, with B zero at the start. Hu et al. 2021, arXiv:2106.09685.

    ``dropout`` acts on what goes into A; attention that reads its own
    weights (torch's packed one) has no place for it.
    """

    kind: Literal["lora"] = "lora"
    rank: int = Field(default=8, ge=1, le=1024)
    lora_alpha: float = Field(default=16.0, gt=0)
    dropout: float = Field(default=0.0, ge=0, lt=1)
    layers: LayerKinds = ("attention", "linear", "conv")

    @property
    def label(self) -> str:
        """Such as ``lora(8)``."""
        return f"{self.kind}({self.rank})"

    def attach(self, backbone: nn.Module) -> None:
        plain, attentions = find_layers(backbone, self.layers)
        if not plain and not attentions:
            self.refuse(backbone, f"dense layers of the kinds {', '.join(self.layers)}", "other 'layers'")
        if plain:
            config = import_peft().LoraConfig(
                r=self.rank,
                lora_alpha=self.lora_alpha,
                lora_dropout=self.dropout,
                target_modules=exact_pattern(plain),
            )
            inject(backbone, config)
        update_attention(backbone, attentions, LowRankUpdate, self.rank, self.lora_alpha)

    def trained_names(self, backbone: nn.Module) -> set[str]:
        return factor_names(backbone)

    def fold(self, backbone: nn.Module) -> nn.Module:
        return merged(backbone)

    def controller(self, backbone: nn.Module) -> AdapterController:
        layers = low_rank_layers(backbone)
        return AdapterController({name: len(factors(layer)["lora_A"]) for name, layer in layers.items()})
