"""A model from elsewhere that tells bright images from dark ones."""

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
