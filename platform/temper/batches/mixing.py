"""Mixed images with shares of classes as their labels."""

import torch
from torch import Tensor

from temper.data import MixSpec


def mix(
    images: Tensor,
    labels: Tensor,
    spec: MixSpec,
    num_classes: int,
    seed: int,
    before: tuple[Tensor, Tensor] | None = None,
) -> tuple[Tensor, Tensor]:
    """Mixed float images (B,3,H,W) in [0,1] and shares of classes (B,C), from labels (B,); by ``seed``.

    Each image is mixed with the one before it, and the first with the last or, in a part of a batch, with
    ``before``: an image (1,3,H,W) and its label (1,).
    """
    from torchvision.transforms import v2  # seconds to import

    choices = {
        "mixup": lambda: v2.MixUp(alpha=spec.mixup_beta, num_classes=num_classes),
        "cutmix": lambda: v2.CutMix(alpha=spec.cutmix_beta, num_classes=num_classes),
    }
    if before is not None:
        images, labels = (torch.cat(pair) for pair in zip(before, (images, labels), strict=True))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        kind = spec.kind
        if kind == "either":
            kind = "mixup" if torch.rand(()) < 0.5 else "cutmix"
        mixed, shares = choices[kind]()(images, labels)
    return (mixed, shares) if before is None else (mixed[1:], shares[1:])
