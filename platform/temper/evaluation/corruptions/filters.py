"""Kernels, and their convolution with a batch of images.

Legend: images (B,C,H,W); kernels (1,k,k) shared or (B,k,k) one per image, k odd, each of sum 1.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor


def convolve(images: Tensor, kernels: Tensor) -> Tensor:
    """Each image under its kernel; beyond its border the image goes on with the border's values.

    Through the Fourier transform, because kernels are up to 100 pixels wide on large images, and in float64,
    so that what the algorithm does differently for another batch size stays far below a step of 8 bits.
    """
    reach = kernels.shape[-1] // 2
    padded = F.pad(images, (reach,) * 4, mode="replicate").double()
    size = list(padded.shape[-2:])
    spectrum = torch.fft.rfft2(padded) * torch.fft.rfft2(kernels.double(), s=size).unsqueeze(1)
    result: Tensor = torch.fft.irfft2(spectrum, s=size)
    # The kernel's origin is its corner, so what belongs to pixel (0, 0) lies at (2 * reach, 2 * reach).
    return result[..., 2 * reach :, 2 * reach :].to(images.dtype)


def smooth(images: Tensor, sigma: float) -> Tensor:
    """Images or fields (...,H,W) under a Gaussian of ``sigma`` pixels; each is mirrored beyond its border.

    As two matrix products, whose cost does not grow with ``sigma``.
    """
    height, width = (gaussian_matrix(side, sigma, images.device) for side in images.shape[-2:])
    return (height @ images.double() @ width.T).to(images.dtype)


def gaussian_matrix(side: int, sigma: float, device: torch.device) -> Tensor:
    """(side,side) float64: row i holds the weight of every pixel of a mirrored line at pixel i."""
    reach = math.ceil(4 * sigma)
    offsets = torch.arange(-reach, reach + 1, device=device)
    weights = torch.exp(-((offsets.double() / max(sigma, 1e-3)) ** 2) / 2)
    places = (torch.arange(side, device=device)[:, None] + offsets) % (2 * side)
    places = torch.minimum(places, 2 * side - 1 - places)
    matrix = torch.zeros(side, side, dtype=torch.float64, device=device)
    return matrix.scatter_add_(1, places, (weights / weights.sum()).expand(side, -1).contiguous())


def disk(radius: float, softness: float, device: torch.device, parts: int = 9) -> Tensor:
    """(1,k,k): a disk of ``radius`` pixels, each pixel weighted with its share inside, then softened.

    ``softness`` is the standard deviation, in pixels, of a Gaussian over the disk. A pixel is cut into
    ``parts`` x ``parts``.
    """
    reach = max(0, math.ceil(radius - 0.5))
    side = (2 * reach + 1) * parts
    line = (torch.arange(side, dtype=torch.float64, device=device) - (side - 1) / 2) / parts
    inside = (line[:, None] ** 2 + line**2 <= radius**2).double()
    shares = F.avg_pool2d(inside[None, None], parts)
    shares = smooth(F.pad(shares, (math.ceil(4 * softness),) * 4), softness)[0]
    return shares / shares.sum()


def motion(radius: float, sigma: float, degrees: Tensor) -> Tensor:
    """(B,k,k): a streak from the pixel outwards at an angle per image ``degrees`` (B,).

    The weight falls as one half of a Gaussian of ``sigma`` pixels and ends at 2 ``radius`` pixels, as in
    ImageMagick's motion blur; but a place between pixels is shared among its four neighbours, not rounded.
    """
    length = max(1, math.ceil(min(2 * radius, 3.5 * sigma)))
    steps = torch.arange(length + 1, dtype=torch.float64, device=degrees.device)
    weights = torch.exp(-((steps / sigma) ** 2) / 2)
    radians = degrees.double().deg2rad()[:, None]
    x, y = (length + steps * along for along in (radians.cos(), radians.sin()))
    side = 2 * length + 1
    kernels = torch.zeros(len(degrees), side * side, dtype=torch.float64, device=degrees.device)
    left, top = x.floor().clamp(max=side - 2), y.floor().clamp(max=side - 2)
    for right in (0, 1):
        for down in (0, 1):
            share = (1 - (x - left - right).abs()) * (1 - (y - top - down).abs())
            kernels.scatter_add_(1, ((top + down) * side + left + right).long(), share * weights)
    return (kernels / kernels.sum(1, keepdim=True)).reshape(-1, side, side)
