"""A copy of a model with its BatchNorm folded into the convolutions before it: the same answers, sooner."""

import copy

import torch
from torch import Tensor, fx, nn
from torch.fx.experimental.optimization import fuse

TOLERANCE = 1e-4
"""By which logits of the copy may differ, relative to the largest."""


@torch.no_grad()
def folded_copy(model: nn.Module, images: Tensor) -> nn.Module:
    """A frozen copy of ``model`` (in eval mode) for attacks, or ``model`` itself where nothing can be folded.

    The copy has answered ``images`` (B,3,H,W) in [0,1] as the model did; one that does not is thrown away.
    """
    if not any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in model.modules()):
        return model
    try:
        copied = _fold(copy.deepcopy(model)).eval().requires_grad_(False)
        expected, answered = model(images), copied(images)
    except Exception:  # whatever a foreign model does when it is copied or traced, it can be attacked itself
        return model
    # Not finite is not near: such a model is judged by itself.
    is_same = (expected - answered).abs().max() <= TOLERANCE * expected.abs().max().clamp_min(1.0)
    return copied if is_same else model


def _fold(module: nn.Module) -> nn.Module:
    """Fold ``module`` where its forward can be traced, or else each of its children."""
    if not list(module.children()):
        return module
    try:
        fx.symbolic_trace(module)
        return fuse(module)
    except Exception:  # tracing fails in many ways; what cannot be traced is folded part by part
        for name, child in module.named_children():
            setattr(module, name, _fold(child))
        return module
