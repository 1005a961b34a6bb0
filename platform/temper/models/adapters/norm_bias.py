"""Training what a backbone has already: its normalization and its biases."""

import copy
from typing import Literal

from torch import nn
from torch.nn.modules.batchnorm import _NormBase

from temper.models.adapters.base import Adapter

NORMS = (_NormBase, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)


class NormBias(Adapter):
    """All affine parameters of normalization layers and all biases; nothing is added.

    Biases: BitFit, Ben Zaken et al. 2021, arXiv:2106.10199. Normalization: Frankle et al. 2020,
    arXiv:2003.00152.
    """

    kind: Literal["norm_bias"] = "norm_bias"

    def attach(self, backbone: nn.Module) -> None:
        if not self.trained_names(backbone):
            self.refuse(backbone, "biases and normalization layers", "lora or bottleneck")

    def trained_names(self, backbone: nn.Module) -> set[str]:
        return {
            f"{name}.{parameter}".removeprefix(".")
            for name, module in backbone.named_modules()
            for parameter, _ in module.named_parameters(recurse=False)
            if isinstance(module, NORMS) or parameter == "bias" or parameter.endswith("_bias")
        }

    def fold(self, backbone: nn.Module) -> nn.Module:
        return copy.deepcopy(backbone).requires_grad_(True)
