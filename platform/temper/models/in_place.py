"""ReLU and global average pooling of networks in channels_last: as torch's, with less memory touched."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

THRESHOLD = torch.ops.aten.threshold_backward


def relu_(features: Tensor) -> Tensor:
    """ReLU in place, whose gradient on a CPU is computed in place as well.

    Only for ``features`` whose answer goes to convolutions, normalisation and pooling, or past them into a
    sum with what they make of it: such a gradient is nobody else's by the time it arrives here.
    """
    if _is_graph_needed(features):
        answered: Tensor = _ReLU.apply(features)
        return answered
    return F.relu(features, inplace=True)


def average_globally(features: Tensor) -> Tensor:
    """Features (B,C,H,W) to their means (B,C); on a CPU the gradient lies in memory as the features do.

    Torch's lies otherwise, and what is next on the way back takes ten times as long.
    """
    if _is_graph_needed(features):
        answered: Tensor = _GlobalAverage.apply(features)
        return answered.flatten(1)
    return F.adaptive_avg_pool2d(features, 1).flatten(1)


def _is_graph_needed(features: Tensor) -> bool:
    is_eager = features.device.type == "cpu" and not torch.compiler.is_compiling()
    return is_eager and torch.is_grad_enabled() and features.requires_grad


class _ReLU(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, features: Tensor) -> Tensor:
        ctx.mark_dirty(features.relu_())
        ctx.save_for_backward(features)
        return features

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        (answered,) = ctx.saved_tensors
        is_graph_kept = torch.is_grad_enabled()  # for a gradient of the gradient
        if is_graph_kept or gradient.stride() != answered.stride():
            fresh: Tensor = THRESHOLD(gradient, answered, 0)
            return fresh
        THRESHOLD.grad_input(gradient, answered, 0, grad_input=gradient)
        return gradient


class _GlobalAverage(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, features: Tensor) -> Tensor:
        ctx.shape = features.shape
        ctx.is_last = features.is_contiguous(memory_format=torch.channels_last)
        return F.adaptive_avg_pool2d(features, 1)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        shares: Tensor = (gradient / (ctx.shape[2] * ctx.shape[3])).expand(ctx.shape)
        memory_format = torch.channels_last if ctx.is_last else torch.contiguous_format
        return shares.contiguous(memory_format=memory_format)
