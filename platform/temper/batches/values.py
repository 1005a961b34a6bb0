"""From stored values to what models and attacks see."""

import torch
from torch import Tensor


def as_floats(stored: Tensor, device: torch.device | str | None = None) -> Tensor:
    """Stored uint8 values (B, ...) as float32 in [0,1], on ``device`` if one is given.

    Models and attacks know examples in this range alone; what a model makes of it stands in its first layer.
    """
    moved = stored if device is None else stored.to(device)
    return moved.float() / 255
