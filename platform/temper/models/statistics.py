"""BatchNorm statistics: those of the start kept beside those that training moves."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor, nn
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
            (_buffer(m, "running_mean").clone(), _buffer(m, "running_var").clone()) for m in self._layers
        ]

    @contextmanager
    def applied(self) -> Iterator[None]:
        """The layers on the start's statistics; theirs come back untouched afterwards."""
        current = [(m.training, m.running_mean, m.running_var) for m in self._layers]
        try:
            # Other tensors rather than other values: autograd keeps what this pass has read.
            for module, (mean, var) in zip(self._layers, self._saved, strict=True):
                module.training, module.running_mean, module.running_var = False, mean, var
            yield
        finally:
            for module, (mode, mean, var) in zip(self._layers, current, strict=True):
                module.training, module.running_mean, module.running_var = mode, mean, var


def _buffer(module: nn.Module, name: str) -> Tensor:
    buffer = getattr(module, name)
    assert isinstance(buffer, Tensor)
    return buffer
