"""A model held still for attacks, with every pass through it counted."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from temper.attacks import attack_mode
from temper.errors import ModelError


class CountedModel(nn.Module):
    """Counts images forward and gradients back; refuses logits that are not finite.

    Foolbox takes NaN logits for class 0, so they must never reach it.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.num_forward = 0
        self.num_backward = 0

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.model(images)
        self.num_forward += len(images)
        if not torch.isfinite(logits).all():
            raise ModelError(
                "the model's logits are not finite (NaN or infinity): nothing can be measured on it"
            )
        if logits.requires_grad:
            logits.register_hook(self._count_backward)  # type: ignore[no-untyped-call]
        return logits

    def _count_backward(self, gradient: Tensor) -> None:
        self.num_backward += len(gradient)


@contextmanager
def held_still(model: nn.Module) -> Iterator[CountedModel]:
    """``model`` in eval mode with frozen parameters and counters; restored exactly afterwards.

    Foolbox's attacks call ``loss.backward()``: with frozen parameters no gradient piles up in them.
    """
    with attack_mode(model):
        counted = CountedModel(model)
        counted.eval()
        yield counted
