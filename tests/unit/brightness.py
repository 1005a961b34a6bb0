"""A model from elsewhere that tells bright images from dark ones, and such images."""

from pathlib import Path

import numpy as np
from PIL import Image

ZOO = """
import torch
from torch import nn

class Brightness(nn.Module):
    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(20.0))

    def forward(self, images):
        mean = images.mean((1, 2, 3))
        return torch.stack([mean - 0.5, 0.5 - mean], 1) * self.scale

def build():
    return Brightness()
"""


def save_picture(path: Path, sign: int, site: str, generator: np.random.Generator) -> None:
    """A bright (``sign`` 1) or dark (-1) picture; at the site "east" so grey that a small attack fools it."""
    mean = 127.5 + sign * (2 if site == "east" else 60)
    Image.fromarray(generator.normal(mean, 3, (8, 8, 3)).clip(0, 255).astype(np.uint8)).save(path)
