"""An optimizer's state as named tensors, which may be written and read without pickle."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from temper.errors import CheckpointError


def optimizer_tensors(optimizer: torch.optim.Optimizer, names: Sequence[str]) -> dict[str, Tensor]:
    """The optimizer's state as tensors, by ``names`` of its parameters in their order."""
    return {
        f"{names[index]}|{slot}": torch.as_tensor(value)
        for index, slots in optimizer.state_dict()["state"].items()
        for slot, value in slots.items()
        if value is not None
    }


def load_optimizer(
    optimizer: torch.optim.Optimizer, names: Sequence[str], tensors: dict[str, Tensor]
) -> None:
    """Give ``optimizer``, of the parameters ``names``, the state that it had.

    Raises:
        CheckpointError: the state is that of other parameters.
    """
    slots: dict[int, dict[str, Any]] = {}
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    place = {name: index for index, name in enumerate(names)}
    for key, value in tensors.items():
        name, _, slot = key.partition("|")
        if name not in place:
            raise CheckpointError(f"the optimizer's state names '{name}', which this phase does not train")
        slots.setdefault(place[name], {})[slot] = _laid_out(value, parameters[place[name]])
    optimizer.load_state_dict({**optimizer.state_dict(), "state": slots})


def _laid_out(value: Tensor, parameter: Tensor) -> Tensor:
    """``value`` in memory as ``parameter`` is: a file has it otherwise, and fused kernels want them alike."""
    if value.shape != parameter.shape:
        return value
    return torch.empty_like(parameter, dtype=value.dtype, device=value.device).copy_(value)
