"""What follows what in a network: which BatchNorm reads which convolution, and who else does."""

import sys
from collections.abc import Iterator

from torch import fx, nn

from temper.models.in_place import average_globally, relu_


def graphs(module: nn.Module, prefix: str = "") -> Iterator[tuple[str, nn.Module, fx.Graph]]:
    """The graph of ``module``, where its forward can be traced, or else those of its children."""
    try:
        graph = _Tracer().trace(module)
    except Exception:  # tracing fails in many ways; what cannot be traced is looked at part by part
        for name, child in module.named_children():
            yield from graphs(child, f"{prefix}{name}.")
    else:
        yield prefix, module, graph


def pairs(prefix: str, module: nn.Module, graph: fx.Graph) -> Iterator[tuple[str, str]]:
    """Names of convolutions, each with that of the BatchNorm that alone reads it."""
    calls = [node for node in graph.nodes if node.op == "call_module"]
    targets = [node.target for node in calls]
    for node in calls:
        before = node.args[0]
        if not isinstance(before, fx.Node) or before.op != "call_module" or len(before.users) > 1:
            continue
        conv, norm = module.get_submodule(str(before.target)), module.get_submodule(str(node.target))
        is_once = targets.count(before.target) == targets.count(node.target) == 1
        # Exactly these classes: a subclass may compute something else.
        if is_once and is_conv(conv) and is_norm(norm) and is_plain(conv, norm):
            yield f"{prefix}{before.target}", f"{prefix}{node.target}"


def convolutions(prefix: str, module: nn.Module, graph: fx.Graph) -> Iterator[str]:
    """Names of those that are called as they are, and whose weights nobody else reads."""
    calls = {str(node.target) for node in graph.nodes if node.op == "call_module"}
    read = {str(node.target).rpartition(".")[0] for node in graph.nodes if node.op == "get_attr"}
    for name in sorted(calls - read):
        conv = module.get_submodule(name)
        if is_conv(conv) and not (conv._forward_hooks or conv._forward_pre_hooks):
            yield f"{prefix}{name}"


def is_conv(module: nn.Module) -> bool:
    """Whether it is a convolution whose weights and bias may be others."""
    return type(module) is nn.Conv2d or _is_timm(module, "Conv2dSame")


def is_norm(module: nn.Module) -> bool:
    """Whether it is a BatchNorm, perhaps with an activation after it."""
    return type(module) is nn.BatchNorm2d or (
        _is_timm(module, "BatchNormAct2d") and type(module.drop) is nn.Identity
    )


def after_norm(norm: nn.Module) -> nn.Module:
    """What is left to do where the convolution does the work of ``norm``."""
    activation = getattr(norm, "act", None)
    return activation if isinstance(activation, nn.Module) else nn.Identity()


def is_plain(*modules: nn.Module) -> bool:
    """Whether nobody listens in between, and the statistics are the running ones."""
    hooks = [own for module in modules for own in (module._forward_hooks, module._forward_pre_hooks)]
    return not any(hooks) and getattr(modules[-1], "running_mean", None) is not None


def plain_norms(module: nn.Module) -> list[str]:
    """Names of PyTorch's BatchNorm layers that are left when others are folded."""
    return [name for name, part in module.named_modules() if type(part) is nn.BatchNorm2d and is_plain(part)]


class _Tracer(fx.Tracer):
    """Does not look into layers that are known."""

    def __init__(self) -> None:
        super().__init__(autowrap_functions=(relu_, average_globally))

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return is_conv(m) or is_norm(m) or super().is_leaf_module(m, module_qualified_name)


def _is_timm(module: nn.Module, name: str) -> bool:
    """Whether ``module`` is of that very class of timm's layers; without timm nothing is."""
    layers = sys.modules.get("timm.layers")
    return layers is not None and type(module) is getattr(layers, name, None)
