"""Adversarial weight perturbation: the gradient is taken where the weights are worst."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from temper.attacks import kept_statistics
from temper.training.worker import Worker


@contextmanager
def perturbed_weights(
    model: nn.Module, loss_fns: Sequence[Callable[[], Tensor]], gamma: float, worker: Worker
) -> Iterator[None]:
    """``model`` with each weight tensor moved by ``gamma`` of its norm up the gradient of the losses' sum.

    Wu et al. 2020, arXiv:2004.05884. Biases and other vectors stay. The gradient is the mean over the ranks;
    the weights come back bit for bit, and BatchNorm's running statistics are not moved by the ascent.
    """
    weights = [
        parameter for parameter in model.parameters() if parameter.requires_grad and parameter.dim() > 1
    ]
    found = [torch.zeros_like(weight) for weight in weights]
    with kept_statistics(model):
        for loss_fn in loss_fns:
            gradients = torch.autograd.grad(loss_fn(), weights, allow_unused=True)
            found = [w if g is None else w + g for w, g in zip(found, gradients, strict=True)]
    saved = [weight.detach().clone() for weight in weights]
    with torch.no_grad():
        for weight, gradient in zip(weights, found, strict=True):
            mean = worker.sum(gradient) / worker.world_size
            weight.add_(mean * (gamma * weight.norm() / mean.norm().clamp_min(1e-12)))
    try:
        yield
    finally:
        with torch.no_grad():
            for weight, value in zip(weights, saved, strict=True):
                weight.copy_(value)
