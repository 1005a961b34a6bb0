"""timm's layers that do the work of two: the convolution or BatchNorm in them, and the rest."""

from torch import fx, nn

SAME_CONV = ("timm.layers.conv2d_same", "Conv2dSame")
"""A convolution that pads as TensorFlow does, by the size of its input."""
NORM_ACT = ("timm.layers.norm_act", "BatchNormAct2d")
"""BatchNorm, and the activation after it."""


class LayerTracer(fx.Tracer):
    """Traces a network down to PyTorch's layers and these."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return _name(m) in (SAME_CONV, NORM_ACT) or super().is_leaf_module(m, module_qualified_name)


def is_conv(module: nn.Module) -> bool:
    """Whether it is exactly a convolution: a subclass may compute something else."""
    return type(module) is nn.Conv2d or _name(module) == SAME_CONV


def is_norm(module: nn.Module) -> bool:
    """Whether it is exactly a BatchNorm, perhaps with an activation after it."""
    return type(module) is nn.BatchNorm2d or _name(module) == NORM_ACT


def rest_of(norm: nn.Module) -> nn.Module:
    """What a BatchNorm of ``is_norm`` does beside normalizing, in eval mode."""
    activation = getattr(norm, "act", None)
    return activation if isinstance(activation, nn.Module) else nn.Identity()


def _name(module: nn.Module) -> tuple[str, str]:
    return type(module).__module__, type(module).__qualname__
