"""Adapters: a few new or chosen parameters that train instead of the backbone's own.

Add one: a file with a subclass of ``Adapter``, and its name in ``AnyAdapter``.
"""

from typing import Annotated

from pydantic import Field

from temper.models.adapters.adalora import AdaLoRA
from temper.models.adapters.base import Adapter, AdapterController
from temper.models.adapters.bottleneck import Bottleneck
from temper.models.adapters.lora import LoRA
from temper.models.adapters.norm_bias import NormBias
from temper.models.adapters.prefix import Prefix

AnyAdapter = Annotated[LoRA | AdaLoRA | Bottleneck | Prefix | NormBias, Field(discriminator="kind")]

__all__ = [
    "AdaLoRA",
    "Adapter",
    "AdapterController",
    "AnyAdapter",
    "Bottleneck",
    "LoRA",
    "NormBias",
    "Prefix",
]
