"""One run, from its recipe to a trained checkpoint: in this process, or on Ray Train's workers."""

import logging
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from temper.cluster.datasets import decode_splits, is_resident
from temper.cluster.holding import hold_run
from temper.cluster.runtime import start_ray
from temper.cluster.workers import OnEpoch, run_here, run_on_workers
from temper.data import stratified_subset, warn_of_absent
from temper.errors import CheckpointError
from temper.models import build_model
from temper.recipe import Recipe, load_recipe, pretrain_recipe, probe_recipe
from temper.records import RunFolder, write_atomic
from temper.run.open_data import OpenData, open_data
from temper.spec import dump_yaml
from temper.storage import RUNS_WITHIN, SMALL, fetched, mirrored, named, portable
from temper.training import Origin, PhasePlan, TrainState, plan_phases, read_last

HALF_WRITTEN = f".*.{'[0-9a-f]' * 8}.tmp"

logger = logging.getLogger(__name__)


def launch(
    recipe: Recipe,
    out: Path,
    *,
    pretrain: Path | None = None,
    on_epoch: OnEpoch | None = None,
    verbose: bool = False,
) -> TrainState:
    """Train ``recipe`` into the run folder ``out``; an interrupted run resumes.

    ``pretrain`` is the run folder of the pretraining, where runs share one; ``None``: one inside ``out``.

    Raises:
        TemperError: shards, weights or the folder are not usable, or the run cannot be resumed.
    """
    with hold_run(out):
        return _launch(recipe, out, pretrain, on_epoch, verbose)


def _launch(
    recipe: Recipe, out: Path, pretrain: Path | None, on_epoch: OnEpoch | None, verbose: bool
) -> TrainState:
    with mirrored(out, without=RUNS_WITHIN) as folder:
        run = RunFolder(folder)
        claim(run, recipe)
        data = open_data(recipe)
        check_model(recipe, data)
        _warn_of_validation(recipe, data)
        start = start_weights(recipe, pretrain or run.pretrain, on_epoch=on_epoch, verbose=verbose)
        write_atomic(run.recipe, dump_yaml(recipe.resolved()))
        # Streams are Ray Data's, whoever trains on them.
        if recipe.workers.max_workers > 0 or not is_resident(recipe, data):
            start_ray(verbose=verbose)
        decoded = decode_splits(recipe, data, with_ray=recipe.workers.max_workers > 0)
        origin = start_probe(recipe, run.probe, data, decoded, start, on_epoch=on_epoch)
        if recipe.workers.max_workers == 0:
            return run_here(recipe, run, data, decoded, origin=origin, report=on_epoch)
    return run_on_workers(recipe, run, data, decoded, origin, on_epoch=on_epoch)


def _warn_of_validation(recipe: Recipe, data: OpenData) -> None:
    """Say which classes have no image among those that epochs are compared on."""
    shards = data.shards["target"]
    labels = shards.labels[shards.rows("val")]
    chosen = stratified_subset(labels, recipe.validation.max_images, recipe.seed)
    warn_of_absent(labels[chosen], shards.classes, "validation.max_images")


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
        raise CheckpointError(
            f"{run.path}: holds a run of another recipe; choose another --out, or remove it"
        )
    if state.is_settled:
        raise CheckpointError(
            f"{run.path}: this run is finished; evaluate it with `temper evaluate {run.path}`, "
            "or repeat it with another --out"
        )
    refuse_former_batches(run.path, state, recipe)


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


def check_model(recipe: Recipe, data: OpenData) -> None:
    """Build the model, its phases and its evaluation once here, before workers are requested.

    Raises:
        ModelError: weights that are missing, damaged, or of another backbone; an adapter that does not fit.
        RecipeError: a schedule that the backbone's groups do not allow, or an attack suite that is not there.
    """
    recipe.evaluation.plan(recipe.threat, recipe.seed)
    model = build_model(recipe.model, data.classes, image_size=recipe.data.image_size, seed=recipe.seed)
    plan_phases(recipe, model)


def plan_run(recipe: Recipe) -> list[PhasePlan]:
    """The phases that ``launch`` would train; no weights are read for it.

    Raises:
        TemperError: the shards, the adapter or the schedule do not fit.
    """
    spec = recipe.model.model_copy(update={"weights": None})
    classes = open_data(recipe).classes
    return plan_phases(recipe, build_model(spec, classes, image_size=recipe.data.image_size, seed=0))


def start_weights(
    recipe: Recipe, folder: Path, *, on_epoch: OnEpoch | None = None, verbose: bool = False
) -> str | None:
    """What the run starts from: a start trained on the source task into ``folder``, where the recipe asks
    for it, or the recipe's own weights, with a path that holds on workers elsewhere too.
    """
    if recipe.pretrain is None:
        weights = recipe.model.weights
        # A folder that happens to bear the keyword's name is ./pretrained.
        if weights is None or weights == "pretrained" or not Path(weights).exists():
            return weights
        return str(Path(weights).resolve())
    folder = portable(folder)
    first = pretrain_recipe(recipe)
    if not is_trained(folder, first):
        report = _labelled(on_epoch, "pretrain", first)
        launch(first, folder, on_epoch=report, verbose=verbose)
    return named(folder)


def start_probe(
    recipe: Recipe,
    folder: Path,
    data: OpenData,
    decoded: dict[str, Any],
    start: str | None,
    *,
    on_epoch: OnEpoch | None = None,
) -> Origin:
    """The run's starting point: ``start`` and, if it has learned something, the linear probe on it.

    The probe is a run of its own in ``folder``, and is made there unless it is there already.
    """
    if not recipe.has_start or recipe.is_probe:
        return Origin(start)
    folder, first = portable(folder), probe_recipe(recipe)
    if not is_trained(folder, first):
        report = _labelled(on_epoch, "probe", first)
        with mirrored(folder, without=RUNS_WITHIN) as place:
            run = RunFolder(place)
            claim(run, first)
            write_atomic(run.recipe, dump_yaml(first.resolved()))
            if first.workers.max_workers == 0:
                run_here(first, run, data, decoded, origin=Origin(start), report=report)
        if first.workers.max_workers > 0:
            run_on_workers(first, run, data, decoded, Origin(start), on_epoch=report)
    return Origin(start, named(folder))


def is_trained(folder: Path, recipe: Recipe) -> bool:
    """Whether ``folder`` holds a finished run of ``recipe``.

    Raises:
        CheckpointError: of a version that had other batches.
    """
    state = read_last(RunFolder(fetched(folder, names=SMALL, without=RUNS_WITHIN)))
    if state is None or not state.is_settled or state.recipe_hash != recipe.hash:
        return False
    refuse_former_batches(folder, state, recipe)
    return True


def _labelled(on_epoch: OnEpoch | None, label: str, recipe: Recipe) -> OnEpoch | None:
    """Reports the epochs of a run that precedes the requested one."""
    if on_epoch is None:
        return None
    told = on_epoch

    def report(metrics: Mapping[str, Any]) -> None:
        told({**metrics, label: 1.0, "num_epochs": float(recipe.epochs)})

    return report
