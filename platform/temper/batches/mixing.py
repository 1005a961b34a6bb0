"""Mixed images with shares of classes as their labels."""

import torch
from torch import Tensor

from temper.data import MixSpec


def mix(images: Tensor, labels: Tensor, spec: MixSpec, num_classes: int, seed: int) -> tuple[Tensor, Tensor]:
    """Mixed float images (B,3,H,W) in [0,1] and shares of classes (B,C), from labels (B,); by ``seed``."""
    from torchvision.transforms import v2  # seconds to import

    choices = {
        "mixup": lambda: v2.MixUp(alpha=spec.mixup_beta, num_classes=num_classes),
        "cutmix": lambda: v2.CutMix(alpha=spec.cutmix_beta, num_classes=num_classes),
    }
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        kind = spec.kind
        if kind == "either":
            kind = "mixup" if torch.rand(()) < 0.5 else "cutmix"
        mixed, shares = choices[kind]()(images, labels)
    return mixed, shares
