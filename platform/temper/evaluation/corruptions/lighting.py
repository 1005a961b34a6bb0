"""Light that is too weak, or comes from one side: what goes wrong at a camera over a production line."""

from torch import Tensor

from temper.evaluation.corruptions.draws import Draws
from temper.evaluation.corruptions.fields import pixel_grid, size_of


def darkness(images: Tensor, _draws: Draws, *, kept: float) -> Tensor:
    """``kept`` of the light, as with a weaker lamp or a shorter exposure."""
    return images * kept


def uneven_lighting(images: Tensor, draws: Draws, *, strength: float) -> Tensor:
    """Times a straight slope from 1 - ``strength`` to 1 + ``strength``, across the image at a random angle.

    A lamp at one side. Both ends lie in corners, so that the slope has the same reach at every angle.
    """
    height, width = size_of(images)
    x, y = pixel_grid(height, width, images.device)
    radians = draws.uniform(1, high=360)[:, 0].deg2rad()[:, None, None]
    slope = x * radians.cos() + y * radians.sin()
    slope = slope / slope.abs().amax((1, 2), keepdim=True).clamp(min=1e-6)
    return images * (1 + strength * slope)[:, None]
