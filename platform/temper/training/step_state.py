"""What a run carries from step to step."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from temper.models import TaskModel
from temper.records import RunFolder
from temper.training.averaging import NoAverage
from temper.training.optimizer_state import load_optimizer, optimizer_tensors
from temper.training.plan import PhasePlan, phase_of
from temper.training.saving import Parts, read_parts, restore_model
from temper.training.state import TrainState, digest_of


@dataclass(frozen=True)
class StepState:
    """The model, its optimizer, its average, and what its adapter knows of the steps so far."""

    model: TaskModel
    optimizer: torch.optim.Optimizer
    names: Sequence[str]
    """Of the optimizer's parameters."""
    average: NoAverage

    def parts(self) -> Parts:
        """All of it as it is now; the next step changes it."""
        return {
            "model": self.model.state_dict(),
            "optimizer": optimizer_tensors(self.optimizer, self.names),
            "average": self.average.state_dict(),
            "adapter": self.model.controller.state_dict(),
        }

    def copy(self) -> Parts:
        """A copy to return to."""
        return {
            part: {name: value.detach().clone() for name, value in tensors.items()}
            for part, tensors in self.parts().items()
        }

    def load(self, parts: Parts) -> None:
        """Continue from ``parts``."""
        self.model.load_state_dict(parts["model"])
        load_optimizer(self.optimizer, self.names, parts.get("optimizer", {}))
        self.average.load_state_dict(parts.get("average", {}))
        self.model.controller.load_state_dict(parts.get("adapter", {}))


def take_up(
    run: RunFolder, state: TrainState, plans: list[PhasePlan], model: TaskModel, average: NoAverage
) -> Parts:
    """Load the weights of ``last/``, check that they were trained as the recipe says; return the other parts.

    Raises:
        CheckpointError: missing, damaged, or of another model.
    """
    restore_model(run, state, model)
    if not state.has_begun:
        return {}
    parts = read_parts(run, state)
    if "average" in parts:
        average.load_state_dict(parts.pop("average"))
    if "adapter" in parts:
        model.controller.load_state_dict(parts.pop("adapter"))
    if state.next_epoch > 0:
        names = phase_of(plans, state.next_epoch - 1).names
        assert state.trainable == digest_of(names), "the trainable set must follow from the epoch"
    return parts
