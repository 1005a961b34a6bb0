"""The average of the weights over the steps, where the recipe asks for one."""

from typing import Any

from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from temper.models import TaskModel


class NoAverage:
    """The weights as they are."""

    def __init__(self, model: TaskModel) -> None:
        self.model = model
        """What is validated and kept."""

    def update(self) -> None:
        """Called after each step."""

    def restart(self) -> None:
        """Restart from the current weights."""

    def state_dict(self) -> dict[str, Tensor]:
        """What a resumed run needs beside the model; empty here."""
        return {}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Continue from ``state``."""


class EMA(NoAverage):
    """The exponential moving average of weights and BatchNorm statistics."""

    def __init__(self, model: TaskModel, decay: float) -> None:
        self._current = model
        average_fn = get_ema_multi_avg_fn(decay)  # type: ignore[no-untyped-call]
        self._average: nn.Module = AveragedModel(model, multi_avg_fn=average_fn, use_buffers=True)
        averaged: Any = self._average.module
        averaged.requires_grad_(False)
        super().__init__(averaged)

    def update(self) -> None:
        self._average.update_parameters(self._current)  # type: ignore[operator]

    def restart(self) -> None:
        self.model.load_state_dict(self._current.state_dict())
        self._average.n_averaged.zero_()  # type: ignore[operator]

    def state_dict(self) -> dict[str, Tensor]:
        return dict(self._average.state_dict())

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        self._average.load_state_dict(state)


def build_average(model: TaskModel, decay: float | None) -> NoAverage:
    """The average of ``model``, or the model itself."""
    return NoAverage(model) if decay is None else EMA(model, decay)
