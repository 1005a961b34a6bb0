"""Whether a run folder is free for a recipe, or holds a run of it that continues."""

import logging
import shutil
from pathlib import Path

from temper.errors import CheckpointError
from temper.recipe import Recipe, load_recipe
from temper.records import RunFolder
from temper.storage import named
from temper.training import TrainState, differences, lengthen, read_last, told, why_not_longer

HALF_WRITTEN = f".*.{'[0-9a-f]' * 8}.tmp"

logger = logging.getLogger(__name__)


def claim(run: RunFolder, recipe: Recipe) -> None:
    """Check that ``run`` is free for ``recipe``, or holds an unfinished run of the same one.

    Raises:
        CheckpointError: it holds something else, or this run is finished already.
    """
    for folder in (run.path, run.checkpoint, run.last):
        for half in folder.glob(HALF_WRITTEN):  # by a process that was killed
            half.unlink(missing_ok=True)
    state = read_last(run)
    if state is None:
        _begin(run, recipe)
        return
    if state.recipe_hash != recipe.hash:
        _take_longer(run, recipe, state)
        return
    if state.is_settled:
        raise CheckpointError(
            f"{run.path}: this run is finished; evaluate it with `temper evaluate {run.path}`, "
            "or repeat it with another --out"
        )
    refuse_former_batches(run.path, state, recipe)


def _take_longer(run: RunFolder, recipe: Recipe, state: TrainState) -> None:
    """Let a finished run continue where ``recipe`` is its own with more epochs.

    Raises:
        CheckpointError: it is another recipe, or one whose first epochs are not those of the run.
    """
    found = differences(run, recipe) if run.recipe.exists() else {}
    has_weights = (run.checkpoint / "model.safetensors").exists()
    weights = f"; to start from its weights add --out NEW --set model.weights={named(run.path)}"
    start = weights if has_weights else ""
    if list(found) != ["epochs"]:
        why = f" ({told(found)}){start}" if found else ""
        raise CheckpointError(
            f"{run.path}: holds a run of another recipe; choose another --out, or remove it{why}"
        )
    problem = why_not_longer(recipe, state)
    if problem is None and run.record.exists():
        problem = "it was evaluated, and a record is never overwritten"
    if problem is not None:
        raise CheckpointError(
            f"{run.path}: holds a run of another recipe; epochs is {state.num_epochs} there and "
            f"{recipe.epochs} here, and it cannot be trained longer: {problem}{start}"
        )
    refuse_former_batches(run.path, state, recipe)
    logger.warning("%s: trained longer, from epoch %d on", run.path, state.next_epoch + 1)
    lengthen(run, recipe, state)


def refuse_former_batches(path: Path, state: TrainState | None, recipe: Recipe) -> None:
    """Check that the run of ``recipe`` in ``path`` does not resume with batches of another size.

    Raises:
        CheckpointError: it was begun by a version that counted ``data.batch_size`` for each worker.
    """
    shares = recipe.workers.num_shares
    if state is None or state.batch_size_is_of == "run" or shares == 1:
        return
    named_sizes = {"batch_size": recipe.data.batch_size, "source_batch_size": recipe.data.source_batch_size}
    sizes = [f"data.{name}={size * shares}" for name, size in named_sizes.items() if size is not None]
    raise CheckpointError(
        f"{path}: was started when data.batch_size still counted for each of its {shares} workers, so it "
        f"cannot be resumed; repeat it with another --out and --set {' --set '.join(sizes)}"
    )


def _begin(run: RunFolder, recipe: Recipe) -> None:
    """Check that a folder without a completely saved epoch holds nothing of another run.

    Raises:
        CheckpointError: as ``claim``.
    """
    if not (run.record.exists() or run.checkpoint.exists()):
        return
    is_same = run.recipe.exists() and load_recipe(run.recipe).hash == recipe.hash
    if run.record.exists() or not is_same:
        raise CheckpointError(f"{run.path}: holds another run; choose another --out, or remove it")
    logger.warning("%s: interrupted before an epoch was saved; starting over", run.path)
    shutil.rmtree(run.checkpoint)
