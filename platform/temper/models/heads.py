"""Heads other than a plain linear layer."""

import torch
from torch import Tensor, nn


class BinaryHead(nn.Module):
    """Features (B,D) to one logit z, answered as the logits (B,2) ``[0, z]``.

    The cross-entropy of ``[0, z]`` is the binary cross-entropy of z, and a two-class linear head is this one
    with ``w = w1 - w0``: so losses, attacks and evaluation need to know of one form only.
    """

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.linear = nn.Linear(num_features, 1)

    def forward(self, features: Tensor) -> Tensor:
        logit = self.linear(features)
        return torch.cat([torch.zeros_like(logit), logit], dim=1)
