"""The first convolution of a network, where another one finds the gradient of the images sooner."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

MAX_CHANNELS = 4
"""Of the images."""


class StridedStem(nn.Conv2d):
    """A strided convolution of images, whose gradient with respect to them is computed by a dense one.

    oneDNN goes back from many channels to three at a fifth of its usual speed. The gradient of a convolution
    of stride s is, for each of the s x s places within a stride, a convolution of stride 1 with every s-th
    weight; all of them are computed as one, whose channels are then sorted into places (as the sub-pixel
    convolution of Shi et al. 2016, arXiv:1609.05158, does). Weights get no gradient.
    """

    def forward(self, images: Tensor) -> Tensor:
        if images.device.type != "cpu" or torch.is_autocast_enabled("cpu"):
            return super().forward(images)
        answered: Tensor = _Strided.apply(images, self.weight, self.bias, self.stride, self.padding)
        return answered


class SamePaddedStem(StridedStem):
    """One that pads the images first, as TensorFlow's ``SAME`` does: more at the end, where it is uneven."""

    def forward(self, images: Tensor) -> Tensor:
        sides = zip(images.shape[-2:], self.kernel_size, self.stride, strict=True)
        rows, columns = (
            max((-(-side // step) - 1) * step + kernel - side, 0) for side, kernel, step in sides
        )
        padded = F.pad(images, (columns // 2, columns - columns // 2, rows // 2, rows - rows // 2))
        return super().forward(padded)


def is_strided_stem(conv: nn.Conv2d) -> bool:
    """Whether ``conv`` is of the kind that ``StridedStem`` is faster for."""
    return (
        conv.in_channels <= MAX_CHANNELS < conv.out_channels
        and min(conv.stride) > 1
        and conv.groups == 1
        and set(conv.dilation) == {1}
        and conv.padding_mode == "zeros"
        and not isinstance(conv.padding, str)
    )


def strided_stem(conv: nn.Conv2d, *, is_same_padded: bool = False) -> StridedStem:
    """One like ``conv``, whose weights have yet to be set."""
    (height, width), (down, right), (above, left) = conv.kernel_size, conv.stride, map(int, conv.padding)
    kernel, stride, padding = (height, width), (down, right), (above, left)
    kind = SamePaddedStem if is_same_padded else StridedStem
    return kind(conv.in_channels, conv.out_channels, kernel, stride, padding, device="meta")


class _Strided(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        images: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        stride: tuple[int, int],
        padding: tuple[int, int],
    ) -> Tensor:
        ctx.save_for_backward(weight)
        ctx.size, ctx.stride, ctx.padding = images.shape[-2:], stride, padding
        return F.conv2d(images, weight, bias, stride, padding)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None, None]:
        (weight,) = ctx.saved_tensors
        return _image_gradient(gradient, weight, ctx.size, ctx.stride, ctx.padding), None, None, None, None


def _image_gradient(
    gradient: Tensor, weight: Tensor, size: torch.Size, stride: tuple[int, int], padding: tuple[int, int]
) -> Tensor:
    """Of images (B,C,H,W) of ``size`` H, W, from that of what the convolution answered."""
    taps, margins = [], []
    for side, kernel, step, pad, length in zip(
        size, weight.shape[-2:], stride, padding, gradient.shape[-2:], strict=True
    ):
        # Pixel ``step * a + place`` met weight ``place + pad - step * offset`` in answer ``a + offset``.
        first, last = -((kernel - 1 - pad) // step), (step - 1 + pad) // step
        index = torch.arange(step)[:, None] + pad - step * torch.arange(first, last + 1)
        taps.append(torch.where((index >= 0) & (index < kernel), index, kernel))
        margins.append((-first, -(-side // step) - length + last))
    padded = F.pad(weight, (0, 1, 0, 1))  # so that the tap ``kernel`` is a zero
    # (O,C,s,T,s,T) to (C*s*s,O,T,T), s places and T taps in each direction.
    dense = padded[:, :, taps[0][:, :, None, None], taps[1]].permute(1, 2, 4, 0, 3, 5).flatten(0, 2)
    answered = F.conv2d(
        F.pad(gradient, (*margins[1], *margins[0])), dense.contiguous(memory_format=torch.channels_last)
    )
    count, _, height, width = answered.shape
    places = answered.view(count, -1, *stride, height, width).permute(0, 1, 4, 2, 5, 3)
    return places.flatten(4, 5).flatten(2, 3)[:, :, : size[0], : size[1]]
