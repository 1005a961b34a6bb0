"""Checkpoints of a whole model, as safetensors."""

from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save

from temper.errors import CheckpointError, ModelError
from temper.models.task_model import TaskModel
from temper.models.weight_entries import load_exactly
from temper.records import write_atomic


def save_model(model: TaskModel, path: Path) -> None:
    """Write all weights and buffers as safetensors, whole or not at all."""
    write_atomic(path, save({name: value.contiguous().cpu() for name, value in model.state_dict().items()}))


def load_model_state(model: TaskModel, path: Path) -> None:
    """Load a checkpoint of this very model.

    Raises:
        CheckpointError: missing, damaged, or of another model.
    """
    try:
        load_exactly(model, load_file(path), str(path))
    except FileNotFoundError:
        raise CheckpointError(f"{path}: no such checkpoint") from None
    except (OSError, SafetensorError, ModelError) as problem:
        raise CheckpointError(f"{path}: not a checkpoint of this model ({problem})") from None
