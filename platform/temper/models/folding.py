"""A model's twin with BatchNorm folded into the convolutions before it: the same answers, sooner."""

import copy
import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from temper.models.eval_norm import EvalNorm
from temper.models.stem import is_strided_stem, strided_stem
from temper.models.tracing import after_norm, convolutions, graphs, pairs, plain_norms

TOLERANCE = 1e-4
"""By which logits of the twin may differ, relative to the largest."""
BF16_TOLERANCE = 0.05
"""The same where the model computes in bf16."""
SLICE = 64 * 32 * 32
"""Positions that a twin's first convolution answers at once on a CPU, for each thread.

Of more, the activations leave the caches: the gradient of 128 images takes a resnet20 6 % longer at 32 px,
and 15 % at 64 px. Of fewer, weights are laid out anew too often: a resnet18 at 64 px loses 12 % with half.
"""
SMALLEST_SLICE = 8
"""Images."""


@dataclass(frozen=True)
class Fold:
    """A convolution and the BatchNorm after it, and the twin's convolution that does the work of both."""

    conv: nn.Conv2d
    norm: nn.modules.batchnorm._BatchNorm
    folded: nn.Conv2d

    def refresh(self) -> None:
        """Compute the folded weights anew, in place."""
        norm = self.norm
        assert norm.running_mean is not None
        assert norm.running_var is not None
        assert self.folded.bias is not None
        scale = torch.rsqrt(norm.running_var + norm.eps)
        if norm.weight is not None:
            scale = scale * norm.weight
        torch.mul(self.conv.weight, scale.view(-1, 1, 1, 1), out=self.folded.weight)
        shift = -norm.running_mean if self.conv.bias is None else self.conv.bias - norm.running_mean
        bias = shift * scale
        self.folded.bias.copy_(bias if norm.bias is None else bias.add_(norm.bias))


@dataclass(frozen=True)
class Cast:
    """A convolution of a model that computes in bf16, and the twin's, whose weights are cast once."""

    conv: nn.Conv2d
    cast: nn.Conv2d

    def refresh(self) -> None:
        """Cast the weights anew, in place."""
        self.cast.weight.copy_(self.conv.weight)
        if self.conv.bias is not None:
            assert self.cast.bias is not None
            self.cast.bias.copy_(self.conv.bias)


class FoldedModel(nn.Module):
    """Answers as ``model`` does in eval mode. It shares every tensor with it but the folded weights.

    Weights and statistics of the model may change in place: ``refresh`` then follows them. Because the others
    are shared, the model must be held still (``attack_mode``) while the twin is attacked. On a CPU a large
    batch goes through in slices (``SLICE``), which changes answers by rounding at most.
    """

    def __init__(self, model: nn.Module) -> None:
        """Raises whatever copying a foreign model raises."""
        super().__init__()
        shared = {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())}
        self.module = copy.deepcopy(model, dict(shared)).eval()
        # Another copy: a forward that keeps what passes through would keep what stands for it here.
        parts = list(graphs(copy.deepcopy(model, dict(shared)).eval()))
        found = [pair for part in parts for pair in pairs(*part)]
        self._folds = [self._fold(model, *names) for names in found]
        self._casts = list[Cast]()
        if getattr(model, "is_bf16", False):
            called = [name for part in parts for name in convolutions(*part)]
            self._casts = [self._cast(model, name) for name in called if name not in dict(found)]
        self._norms = [self._hold_still(name) for name in plain_norms(self.module)]
        strides = [math.prod(module.stride) for module in model.modules() if isinstance(module, nn.Conv2d)]
        self._first_stride = strides[0] if strides else 1
        self.refresh()
        if getattr(getattr(model, "backbone", None), "_compiled_call_impl", None) is not None:
            self.module.get_submodule("backbone").compile()  # copying has left that behind

    def forward(self, images: Tensor, *task: str) -> Tensor:
        """Logits (B,C) of ``images`` (B,3,H,W) in [0,1]."""
        size = self.images_at_once(images)
        if len(images) <= size:
            logits: Tensor = self.module(images, *task)
            return logits
        return torch.cat([self.module(part, *task) for part in torch.split(images, size)])

    @property
    def is_folded(self) -> bool:
        """Whether anything was found to fold."""
        return bool(self._folds)

    @torch.no_grad()
    def refresh(self) -> None:
        """Follow the model's weights and statistics."""
        parts: tuple[Fold | Cast | EvalNorm, ...] = (*self._folds, *self._casts, *self._norms)
        for part in parts:
            part.refresh()

    @torch.no_grad()
    def answers_like(self, model: nn.Module, images: Tensor) -> bool:
        """Whether both answer ``images`` (B,3,H,W) alike. ``model`` is in eval mode."""
        expected, answered = model(images), self(images)
        tolerance = BF16_TOLERANCE if getattr(model, "is_bf16", False) else TOLERANCE
        # Not finite is not near: such a model is judged by itself.
        return bool((expected - answered).abs().max() <= tolerance * expected.abs().max().clamp_min(1.0))

    def images_at_once(self, images: Tensor) -> int:
        """How many of ``images`` (B,3,H,W) go through at once."""
        if images.device.type != "cpu":
            return len(images)
        positions = max(1, math.prod(images.shape[-2:]) // self._first_stride)
        return torch.get_num_threads() * max(SMALLEST_SLICE, SLICE // positions)

    def _cast(self, model: nn.Module, name: str) -> Cast:
        conv = model.get_submodule(name)
        assert isinstance(conv, nn.Conv2d)
        cast = copy.deepcopy(conv)
        _give_weights(cast, conv, torch.bfloat16, has_bias=conv.bias is not None)
        self.module.set_submodule(name, cast.eval())
        return Cast(conv, cast)

    def _hold_still(self, name: str) -> EvalNorm:
        norm = self.module.get_submodule(name)
        assert isinstance(norm, nn.BatchNorm2d)
        own = EvalNorm(norm).eval()
        self.module.set_submodule(name, own)
        return own

    def _fold(self, model: nn.Module, conv_name: str, norm_name: str) -> Fold:
        conv, norm = model.get_submodule(conv_name), model.get_submodule(norm_name)
        assert isinstance(conv, nn.Conv2d)
        assert isinstance(norm, nn.modules.batchnorm._BatchNorm)
        is_same_padded = type(conv) is not nn.Conv2d  # timm's, the only other kind that is known
        folded = copy.deepcopy(conv)
        if is_strided_stem(conv):
            folded = strided_stem(conv, is_same_padded=is_same_padded)
        # In bf16 each pass would cast them anew.
        dtype = torch.bfloat16 if getattr(model, "is_bf16", False) else conv.weight.dtype
        _give_weights(folded, conv, dtype, has_bias=True)
        self.module.set_submodule(conv_name, folded.eval())
        rest = after_norm(self.module.get_submodule(norm_name))
        self.module.set_submodule(norm_name, rest.eval())
        return Fold(conv, norm, folded)


def folded_model(model: nn.Module, images: Tensor) -> FoldedModel | None:
    """The twin of ``model`` (in eval mode), or ``None`` where nothing can be folded.

    It has answered ``images`` (B,3,H,W) in [0,1] as the model did; one that does not is thrown away.
    """
    if not any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in model.modules()):
        return None
    try:
        twin = FoldedModel(model)
        return twin if twin.is_folded and twin.answers_like(model, images) else None
    except Exception:  # whatever a foreign model does when it is copied or traced, it can be attacked itself
        return None


def folded_copy(model: nn.Module, images: Tensor) -> nn.Module:
    """``folded_model``, or ``model`` itself where there is none."""
    return folded_model(model, images) or model


def _give_weights(own: nn.Conv2d, conv: nn.Conv2d, dtype: torch.dtype, *, has_bias: bool) -> None:
    """Room for weights of ``dtype``, laid out as those of ``conv``."""
    weight = torch.empty_like(conv.weight, dtype=dtype)
    own.weight = nn.Parameter(weight, requires_grad=False)
    own.bias = nn.Parameter(weight.new_empty(len(weight)), requires_grad=False) if has_bias else None
