"""BatchNorm statistics: those of the start kept beside those that training moves."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm


def batch_norms(model: nn.Module) -> list[_BatchNorm]:
    """Every BatchNorm of ``model`` that keeps running statistics."""
    return [
        module
        for module in model.modules()
        if isinstance(module, _BatchNorm) and module.running_mean is not None
    ]


class StartStatistics:
    """The running statistics that a model had when this was made.

    ``applied`` runs its BatchNorm layers on them, in eval mode: the frozen twin of TWINS (Liu et al. 2023,
    arXiv:2303.11135), which shares all weights with the model that adapts.
    """

    def __init__(self, model: nn.Module) -> None:
        self._layers = batch_norms(model)
        self._saved = [
            {name: getattr(layer, name).clone() for name in ("running_mean", "running_var")}
            for layer in self._layers
        ]

    @contextmanager
    def applied(self) -> Iterator[None]:
        """The layers on the start's statistics; theirs come back untouched afterwards."""
        current = [
            {name: getattr(layer, name) for name in ("training", "running_mean", "running_var")}
            for layer in self._layers
        ]
        try:
            # Other tensors rather than other values: autograd keeps what this pass has read.
            for layer, saved in zip(self._layers, self._saved, strict=True):
                _set(layer, {"training": False, **saved})
            yield
        finally:
            for layer, own in zip(self._layers, current, strict=True):
                _set(layer, own)


def _set(layer: nn.Module, values: Mapping[str, object]) -> None:
    for name, value in values.items():
        setattr(layer, name, value)
