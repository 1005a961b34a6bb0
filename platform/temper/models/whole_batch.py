"""Passes of a part of a batch that answer as if the rest went through the model with it."""

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

Gather = Callable[[Tensor], Tensor]
"""A tensor of each process to those of all (W,...), the same everywhere."""
DROPOUTS = (F.dropout, F.dropout1d, F.dropout2d, F.dropout3d)
_ARGUMENTS = inspect.signature(F.batch_norm)


class WholeBatch(TorchFunctionMode):
    """Inside, BatchNorm in training takes the statistics of the whole batch, and dropout draws for all of it.

    ``rows``: the place of each image of the pass among the ``size`` images of the whole; ``None``: it is a
    stand-in, which counts nowhere. Other processes have the other rows, and make the same passes in the same
    order, forward and back: ``gather`` brings their sums together. Unlike PyTorch's SyncBatchNorm it works on
    a CPU, leaves the modules as they are, and knows of stand-ins.
    """

    def __init__(self, rows: Sequence[int | None], size: int, gather: Gather) -> None:
        super().__init__()
        self.num_rows, self.size, self.gather = len(rows), size, gather
        self.counted = [place for place, row in enumerate(rows) if row is not None]
        """Places in the pass that are no stand-ins."""
        self._rows = [row or 0 for row in rows]

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func is F.batch_norm:
            given = _ARGUMENTS.bind(*args, **kwargs)
            given.apply_defaults()
            if given.arguments["training"]:
                return self._normalized(*given.args)
        if func in DROPOUTS and self._is_of_the_pass(args[0]):
            ones = self._of_all(args[0]).fill_(1)
            return args[0] * self._rows_of(func(ones, *args[1:], **kwargs))
        if func is torch.Tensor.bernoulli_ and self._is_of_the_pass(args[0]):
            return args[0].copy_(self._rows_of(self._of_all(args[0]).bernoulli_(*args[1:], **kwargs)))
        return func(*args, **kwargs)

    def own(self, values: Tensor) -> Tensor:
        """Those of ``values`` (B,...) that are no stand-ins'."""
        return values if len(self.counted) == self.num_rows else values[self.counted]

    def _is_of_the_pass(self, values: Tensor) -> bool:
        return values.dim() > 0 and len(values) == self.num_rows

    def _of_all(self, values: Tensor) -> Tensor:
        """Room for the whole batch's, laid out in memory as ``values`` are."""
        whole = values.new_empty(self.size, *values.shape[1:])
        is_last = values.dim() == 4 and values.is_contiguous(memory_format=torch.channels_last)
        return whole.contiguous(memory_format=torch.channels_last) if is_last else whole

    def _rows_of(self, whole: Tensor) -> Tensor:
        return whole[self._rows]

    def _normalized(
        self,
        features: Tensor,
        running_mean: Tensor | None,
        running_var: Tensor | None,
        weight: Tensor | None,
        bias: Tensor | None,
        _training: bool,
        momentum: float,
        eps: float,
    ) -> Tensor:
        """What ``F.batch_norm`` answers in training."""
        assert len(features) == self.num_rows, "BatchNorm has met a pass of other images"
        count, mean, var = self._statistics(features.detach())
        if running_mean is not None and running_var is not None:
            running_mean.lerp_(mean.to(running_mean.dtype), momentum)
            running_var.lerp_((var * (count / (count - 1))).to(running_var.dtype), momentum)
        normalized: Tensor = _Normalize.apply(features, weight, bias, mean, var, eps, count, self)
        return normalized

    def _statistics(self, features: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Values of each channel in the whole batch (1,), their mean and their variance (C,)."""
        own = self.own(_exact(features))
        axes = [axis for axis in range(own.dim()) if axis != 1]
        count = own.numel() // own.shape[1]
        if count:
            var, mean = torch.var_mean(own, axes, correction=0)
        else:
            var = mean = own.new_zeros(own.shape[1])
        found = self.gather(torch.cat([mean.new_tensor([count]), mean, var]))
        counts, means, variances = found[:, :1], *found[:, 1:].chunk(2, dim=1)
        total = counts.sum(0)
        mean = (counts * means).sum(0) / total
        return total, mean, (counts * (variances + (means - mean) ** 2)).sum(0) / total


class _Normalize(torch.autograd.Function):
    """The gradient of BatchNorm over the whole batch. Ioffe and Szegedy 2015, arXiv:1502.03167."""

    @staticmethod
    def forward(
        ctx: Any,
        features: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
        mean: Tensor,
        var: Tensor,
        eps: float,
        count: Tensor,
        whole: WholeBatch,
    ) -> Tensor:
        ctx.save_for_backward(features, weight, mean, var, count)
        ctx.eps, ctx.whole = eps, whole
        exact = F.batch_norm(_exact(features), mean, var, _as(weight, mean), _as(bias, mean), eps=eps)
        return exact.to(features.dtype)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        features, weight, mean, var, count = ctx.saved_tensors
        exact, values = _exact(gradient), _exact(features)
        axes = [axis for axis in range(values.dim()) if axis != 1]
        shape = [-1 if axis == 1 else 1 for axis in range(values.dim())]
        rate = (var + ctx.eps).rsqrt()
        own = ctx.whole.own(exact)
        by_bias = own.sum(axes)
        by_weight = (own * (ctx.whole.own(values) - mean.view(shape))).sum(axes) * rate
        of_all = ctx.whole.gather(torch.stack([by_weight, by_bias])).sum(0) / count
        scale = rate if weight is None else rate * weight
        slope = -scale * rate * of_all[0]
        shift = -slope * mean - scale * of_all[1]
        by_features = exact * scale.view(shape) + values * slope.view(shape) + shift.view(shape)
        if len(ctx.whole.counted) < ctx.whole.num_rows:
            found = torch.zeros_like(by_features)
            found[ctx.whole.counted] = by_features[ctx.whole.counted]
            by_features = found
        by_features = by_features.to(gradient.dtype)
        if weight is None:
            return by_features, None, None, None, None, None, None, None
        return by_features, by_weight.to(weight.dtype), by_bias.to(weight.dtype), None, None, None, None, None


def reads_whole_batch(modes: Sequence[tuple[nn.Module, bool]]) -> bool:
    """Whether a module, of those that train, takes statistics over a batch."""
    return any(trains and isinstance(module, nn.modules.batchnorm._BatchNorm) for module, trains in modes)


def draws(modes: Sequence[tuple[nn.Module, bool]]) -> bool:
    """Whether a module, of those that train, is dropout or stochastic depth."""
    return any(
        trains and ("drop" in type(module).__name__.lower() or type(module).__name__ == "StochasticDepth")
        for module, trains in modes
    )


def _exact(values: Tensor) -> Tensor:
    return values if values.dtype == torch.float64 else values.float()


def _as(values: Tensor | None, like: Tensor) -> Tensor | None:
    return None if values is None else values.to(like.dtype)
