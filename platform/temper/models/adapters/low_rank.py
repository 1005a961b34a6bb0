"""Low-rank layers in a backbone: put in, found, merged. Plain layers are peft's."""

import copy
import re
from types import ModuleType
from typing import Any

from torch import nn

from temper.errors import ModelError
from temper.models.adapters.updates import LowRankUpdate, SingularUpdate, UpdatedAttention

FACTORS = ("lora_A", "lora_E", "lora_B")


def import_peft() -> ModuleType:
    """The optional package (it takes seconds to import).

    Raises:
        ModelError: it is not installed.
    """
    try:
        import peft
    except ImportError:
        raise ModelError(
            "model.adapter: lora and adalora need the package peft; pip install 'temper[peft]'"
        ) from None
    return peft


def inject(backbone: nn.Module, config: Any) -> None:
    """Let peft put its layers into ``backbone``, and leave nothing else there."""
    import_peft().inject_adapter_in_model(config, backbone)
    del backbone.peft_config


def exact_pattern(names: list[str]) -> str:
    """A pattern that peft matches against whole names; a list of names would match their endings too."""
    return f"^(?:{'|'.join(re.escape(name) for name in names)})$"


def low_rank_layers(backbone: nn.Module) -> dict[str, nn.Module]:
    """Name of each adapted layer -> the module that holds its factors."""
    return {
        name: module
        for name, module in backbone.named_modules()
        if isinstance(module, (LowRankUpdate, SingularUpdate)) or _is_peft_layer(module)
    }


def factors(layer: nn.Module) -> dict[str, nn.Parameter]:
    """The factors of an adapted layer: A and B, and for AdaLoRA the singular values E."""
    found: dict[str, nn.Parameter] = {}
    for name in FACTORS:
        part = getattr(layer, name, None)
        if isinstance(part, nn.Parameter):
            found[name] = part
        elif isinstance(part, (nn.ModuleDict, nn.ParameterDict)):  # peft's: adapter name -> factor
            (found[name],) = part.parameters()
    return found


def factor_names(backbone: nn.Module) -> set[str]:
    """Names of all factors in ``backbone``."""
    own = {id(p) for layer in low_rank_layers(backbone).values() for p in factors(layer).values()}
    return {name for name, parameter in backbone.named_parameters() if id(parameter) in own}


def merged(backbone: nn.Module) -> nn.Module:
    """A copy of ``backbone`` with plain layers, whose weights hold the low-rank updates."""
    plain = copy.deepcopy(backbone)
    for name, module in reversed(list(plain.named_modules())):  # inner ones first
        if isinstance(module, UpdatedAttention):
            plain.set_submodule(name, module.merged())
        elif _is_peft_layer(module):
            module.merge(safe_merge=True)
            plain.set_submodule(name, module.get_base_layer())
    return plain.requires_grad_(True)


def _is_peft_layer(module: nn.Module) -> bool:
    return hasattr(module, "get_base_layer") and hasattr(module, "lora_A")
