"""What goes wrong in medical imaging: exposure, coil, patient and receiver.

After MedMNIST-C (Di Salvo et al. 2024, arXiv:2406.17536), which changes gamma and contrast; bias field and
rigid motion are the usual models of magnetic resonance artefacts.
"""

import torch
from torch import Tensor

from temper.evaluation.corruptions.draws import Draws
from temper.evaluation.corruptions.fields import pixel_grid, sample
from temper.evaluation.corruptions.weather import luma


def gamma(images: Tensor, _draws: Draws, *, exponent: float) -> Tensor:
    """Each value to the power of ``exponent``: above 1 darker, below 1 lighter."""
    return images**exponent


def contrast_about_mean(images: Tensor, _draws: Draws, *, factor: float) -> Tensor:
    """The distance from the image's mean lightness times ``factor``."""
    mean = luma(images.double()).mean((1, 2, 3), keepdim=True).to(images.dtype)
    return mean + (images - mean) * factor


def bias_field(images: Tensor, draws: Draws, *, strength: float) -> Tensor:
    """Times exp(``strength`` x f) with f a random cubic polynomial of the place, scaled to max |f| = 1.

    A coil that hears one side of the body better than the other (Van Leemput et al. 1999).
    """
    height, width = images.shape[-2:]
    x, y = pixel_grid(height, width, images.device)
    x, y = 2 * x / width, 2 * y / height
    powers = [(i, degree - i) for degree in (1, 2, 3) for i in range(degree + 1)]
    weights = draws.uniform(len(powers), low=-1, high=1)[..., None, None]
    field = torch.zeros_like(images[:, 0])
    for index, (i, j) in enumerate(powers):
        field = field + weights[:, index] * x**i * y**j
    field = field / field.abs().amax((1, 2), keepdim=True)
    return images * (strength * field).exp()[:, None]


def rigid_motion(images: Tensor, draws: Draws, *, num_moves: float, shift: float, degrees: float) -> Tensor:
    """A patient who moves ``num_moves`` (rounded) times while the scanner collects frequencies line by line.

    Each pose is shifted by at most ``shift`` of the side and turned by at most ``degrees``; between two
    moves, the frequencies of one pose are collected. The lines about frequency 0 belong to the pose at rest.
    The magnitude of the result has ghosts and ringing (after Shaw et al. 2019).
    """
    height = images.shape[-2]
    moves = max(2, round(num_moves))
    cuts = (torch.arange(moves, device=images.device) + draws.uniform(moves)) / moves * height
    lines = torch.arange(height, device=images.device)
    pose_of_line = (lines[None, :, None] >= cuts[:, None]).sum(2)
    at_rest = pose_of_line[:, [height // 2]]
    # A line is collected at once, so the transform along it would only be undone again.
    collected = torch.fft.fftshift(torch.fft.fft(images.double(), dim=2), dim=2)
    for pose in range(moves + 1):
        moved = _moved(images, draws.uniform(3, low=-1, high=1), shift, degrees)
        belongs = (pose_of_line == pose) & (at_rest != pose)
        theirs = torch.fft.fftshift(torch.fft.fft(moved.double(), dim=2), dim=2)
        collected = torch.where(belongs[:, None, :, None], theirs, collected)
    result: Tensor = torch.fft.ifft(torch.fft.ifftshift(collected, dim=2), dim=2).abs()
    return result.to(images.dtype)


def _moved(images: Tensor, drawn: Tensor, shift: float, degrees: float) -> Tensor:
    """Images turned and shifted by the shares ``drawn`` (B,3 in [-1,1]) of the largest movement."""
    height, width = images.shape[-2:]
    x, y = pixel_grid(height, width, images.device)
    angle, along_x, along_y = (drawn[:, index, None, None] for index in range(3))
    angle = (angle * degrees).deg2rad()
    x, y = x + along_x * shift * width, y + along_y * shift * height
    return sample(images, x * angle.cos() - y * angle.sin(), x * angle.sin() + y * angle.cos(), "border")
