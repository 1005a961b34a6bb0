"""Mixed images with shares of classes as their labels."""

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from temper.spec import Spec


class MixSpec(Spec):
    """Mixing of the target images of a batch with each other, by torchvision.

    mixup: Zhang et al. 2017, arXiv:1710.09412; cutmix: Yun et al. 2019, arXiv:1905.04899; ``either`` draws
    one of them for each batch. ``*_beta`` are both parameters of the Beta distribution of the shares.
    """

    kind: Literal["mixup", "cutmix", "either"] = "either"
    mixup_beta: float = Field(default=0.2, gt=0, le=100)
    cutmix_beta: float = Field(default=1.0, gt=0, le=100)


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
