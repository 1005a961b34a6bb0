"""Bottleneck adapters: a small network with a shortcut, behind the blocks of a frozen backbone."""

from typing import Any, Literal, cast

import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from temper.models.adapters.base import Adapter
from temper.models.adapters.layers import fused_attention, packed_attention

RESIDUAL_BLOCKS = frozenset(
    {
        "_efficientnet_blocks.DepthwiseSeparableConv", "_efficientnet_blocks.EdgeResidual",
        "_efficientnet_blocks.InvertedResidual", "cifar_resnet.CifarBlock", "convnext.CNBlock",
        "convnext.ConvNeXtBlock", "efficientnet.FusedMBConv", "efficientnet.MBConv",
        "mnasnet._InvertedResidual",
        "mobilenetv2.InvertedResidual", "mobilenetv3.InvertedResidual", "regnet.Bottleneck",
        "regnet.ResBottleneckBlock", "resnet.BasicBlock", "resnet.Bottleneck", "resnetv2.PreActBasic",
        "resnetv2.PreActBottleneck", "small_resnet.BasicBlock", "small_resnet.PreActBlock",
        "wide_resnet.WideBlock",
    }
)  # fmt: skip
"""File and class of convolutional blocks with a shortcut, in temper, torchvision and timm.

The file counts: ShuffleNet's ``InvertedResidual`` joins its branches side by side.
"""


class Branch(nn.Module):
    """Features f to f + up(gelu(down(f))), with ``up`` zero at the start.

    ``f`` is (B,C,H,W) where ``is_conv``, else (...,C).
    """

    def __init__(self, num_features: int, width: int, *, is_conv: bool) -> None:
        super().__init__()
        self.down = nn.Conv2d(num_features, width, 1) if is_conv else nn.Linear(num_features, width)
        self.up = nn.Conv2d(width, num_features, 1) if is_conv else nn.Linear(width, num_features)
        nn.init.zeros_(self.up.weight)
        nn.init.zeros_(cast(Tensor, self.up.bias))

    def forward(self, features: Tensor) -> Tensor:
        update: Tensor = self.up(F.gelu(self.down(features)))
        return features + update


class Adapted(nn.Module):
    """A frozen module with a branch behind its (first) output."""

    def __init__(self, inner: nn.Module, branch: Branch) -> None:
        super().__init__()
        self.inner = inner
        self.branch = branch

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        output = self.inner(*args, **kwargs)
        if isinstance(output, tuple):
            return (self.branch(output[0]), *output[1:])
        return self.branch(output)


class Bottleneck(Adapter):
    """Down to 1/``reduction`` of the features and up again, zero at the start.

    In transformers behind each attention and each MLP, before the shortcut (Houlsby et al. 2019,
    arXiv:1902.00751); in convolutional networks as two 1x1 convolutions behind each residual block (after
    Rebuffi et al. 2017, arXiv:1705.08045, whose single linear 1x1 sits behind each convolution).
    """

    kind: Literal["bottleneck"] = "bottleneck"
    reduction: int = Field(default=8, ge=1, le=1024)

    @property
    def label(self) -> str:
        """Such as ``bottleneck(8)``."""
        return f"{self.kind}({self.reduction})"

    def attach(self, backbone: nn.Module) -> None:
        places = _places(backbone)
        if not places:
            self.refuse(backbone, "transformer blocks or residual blocks", "lora or norm_bias")
        for name, (num_features, is_conv) in places.items():
            inner = backbone.get_submodule(name)
            weight = next(inner.parameters())
            branch = Branch(num_features, max(1, num_features // self.reduction), is_conv=is_conv)
            backbone.set_submodule(name, Adapted(inner, branch.to(weight)).train(inner.training))

    def trained_names(self, backbone: nn.Module) -> set[str]:
        return {
            f"{name}.branch.{parameter}".removeprefix(".")
            for name, module in backbone.named_modules()
            if isinstance(module, Adapted)
            for parameter, _ in module.branch.named_parameters()
        }

    def fold(self, backbone: nn.Module) -> nn.Module:
        self.refuse_to_fold("its branch is not linear")


def _places(backbone: nn.Module) -> dict[str, tuple[int, bool]]:
    """Module behind which a branch belongs -> its number of features, and whether they are (B,C,H,W)."""
    places: dict[str, tuple[int, bool]] = {}
    for name, module in backbone.named_modules():
        if not name:
            continue
        parts = dict(module.named_children())
        attention = next((part for part in ("attn", "self_attention") if part in parts), None)
        if attention and "mlp" in parts and (width := _attention_width(parts[attention])):
            places |= {f"{name}.{part}": (width, False) for part in (attention, "mlp")}
        elif f"{type(module).__module__.split('.')[-1]}.{type(module).__name__}" in RESIDUAL_BLOCKS:
            places[name] = (_last_width(module), True)
    return places


def _attention_width(attention: nn.Module) -> int | None:
    if packed_attention(attention):
        return cast(nn.MultiheadAttention, attention).out_proj.out_features
    if fused_attention(attention):
        return cast(nn.Linear, attention.get_submodule("proj")).out_features
    return None


def _last_width(block: nn.Module) -> int:
    """Channels that leave a residual block: its last layer is in its branch or in its shortcut."""
    widths = [
        layer.out_channels if isinstance(layer, nn.Conv2d) else layer.out_features
        for layer in block.modules()
        if isinstance(layer, (nn.Conv2d, nn.Linear))
    ]
    return widths[-1]
