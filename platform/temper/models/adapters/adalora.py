"""Low-rank adaptation whose ranks move to where they matter."""

from typing import Literal, Self

from pydantic import Field, model_validator
from torch import nn

from temper.models.adapters.allocation import RankController, RankSchedule
from temper.models.adapters.base import Adapter, AdapterController
from temper.models.adapters.layers import LayerKinds, find_layers
from temper.models.adapters.low_rank import exact_pattern, factor_names, import_peft, inject, merged
from temper.models.adapters.updates import SingularUpdate, update_attention


class AdaLoRA(Adapter):
    """W + lora_alpha / init_rank * B diag(E) A, pruned by importance. Zhang et al. 2023, arXiv:2303.10512.

    Each layer starts with ``init_rank``; at the end there are ``target_rank`` times the number of layers in
    all, spread by importance. The budget stays for the first ``tinit_frac`` of the run's optimizer steps,
    falls as a cubic, and is reached ``tfinal_frac`` before the end; ranks are chosen anew ``every_steps``.
    """

    kind: Literal["adalora"] = "adalora"
    init_rank: int = Field(default=12, ge=1, le=1024)
    target_rank: int = Field(default=8, ge=1, le=1024)
    lora_alpha: float = Field(default=16.0, gt=0)
    dropout: float = Field(default=0.0, ge=0, lt=1)
    layers: LayerKinds = ("attention", "linear", "conv")
    tinit_frac: float = Field(default=0.1, ge=0, lt=1)
    tfinal_frac: float = Field(default=0.3, ge=0, lt=1)
    every_steps: int = Field(default=10, ge=1)
    orth_weight: float = Field(default=0.5, ge=0)
    """Of the mean distance of A A^T and B^T B from the identity, added to the loss."""

    @model_validator(mode="after")
    def _ranks_can_fall(self) -> Self:
        if self.target_rank > self.init_rank:
            raise ValueError(
                f"target_rank is at most init_rank, got {self.target_rank} and {self.init_rank}; "
                "the usual choice is init_rank = 1.5 * target_rank"
            )
        if self.tinit_frac + self.tfinal_frac >= 1:
            raise ValueError(
                "tinit_frac + tfinal_frac is less than 1, or no step is left in which ranks could fall"
            )
        return self

    @property
    def label(self) -> str:
        """Such as ``adalora(12-8)``: the ranks at the start and at the end."""
        return f"{self.kind}({self.init_rank}-{self.target_rank})"

    def attach(self, backbone: nn.Module) -> None:
        plain, attentions = find_layers(backbone, self.layers)
        if not plain and not attentions:
            self.refuse(backbone, f"dense layers of the kinds {', '.join(self.layers)}", "other 'layers'")
        if plain:
            config = import_peft().AdaLoraConfig(
                init_r=self.init_rank,
                target_r=self.target_rank,
                lora_alpha=self.lora_alpha,
                lora_dropout=self.dropout,
                target_modules=exact_pattern(plain),
                total_step=1,  # required; RankController has the schedule
            )
            inject(backbone, config)
        update_attention(backbone, attentions, SingularUpdate, self.init_rank, self.lora_alpha)

    def trained_names(self, backbone: nn.Module) -> set[str]:
        return factor_names(backbone)

    def fold(self, backbone: nn.Module) -> nn.Module:
        return merged(backbone)

    def controller(self, backbone: nn.Module) -> AdapterController:
        schedule = RankSchedule(
            init_rank=self.init_rank,
            target_rank=self.target_rank,
            tinit_frac=self.tinit_frac,
            tfinal_frac=self.tfinal_frac,
            every_steps=self.every_steps,
        )
        return RankController(backbone, schedule, self.orth_weight)
