"""Other runs of the same task, whose adversarial examples are transferred to a model."""

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor

from temper.errors import CheckpointError
from temper.records import RunFolder
from temper.run.start import build_start
from temper.storage import fetched, named
from temper.training import load_best, read_state, recipe_of


def siblings_of(
    paths: Sequence[Path], classes: list[str], image_size: int, device: torch.device
) -> dict[str, Callable[[Tensor], Tensor]]:
    """The runs under ``paths`` as models for ``classes``, by what a gate calls them.

    Raises:
        CheckpointError: no finished run there, or one for other classes or another image size.
    """
    return {f"sibling {path.name}": _answers_of(path, classes, image_size, device) for path in paths}


def _answers_of(
    path: Path, classes: list[str], image_size: int, device: torch.device
) -> Callable[[Tensor], Tensor]:
    run = RunFolder(fetched(path))
    state = read_state(run.checkpoint)
    recipe = recipe_of(run, state)
    if state.classes["target"] != classes or recipe.data.image_size != image_size:
        raise CheckpointError(
            f"{named(path)}: not a sibling: its classes or its image size ({recipe.data.image_size}) differ"
        )
    model = build_start(recipe, state.classes, None)
    load_best(run, state, model)
    frozen = model.to(device).eval().requires_grad_(False)

    def answer(images: Tensor) -> Tensor:
        logits: Tensor = frozen(images)
        return logits

    return answer
