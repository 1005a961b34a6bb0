"""One run, from its recipe to a trained checkpoint: in this process, or on Ray Train's workers."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from temper.cluster.claim import claim, refuse_former_batches
from temper.cluster.datasets import decode_splits, is_resident
from temper.cluster.estimate import Estimate, estimate_cost
from temper.cluster.holding import hold_run
from temper.cluster.resources import check_room
from temper.cluster.runtime import start_ray
from temper.cluster.workers import OnEpoch, run_here, run_on_workers
from temper.data import stratified_subset, warn_of_absent
from temper.models import build_model, is_url
from temper.recipe import Recipe, pretrain_recipe, probe_recipe
from temper.records import RunFolder, write_atomic
from temper.run.open_data import OpenData, open_data
from temper.spec import dump_yaml
from temper.storage import fetched_state, mirrored, named, portable
from temper.training import (
    Origin,
    PhasePlan,
    TrainState,
    plan_phases,
    read_last,
)

MAX_TIMED = 16
"""Images of a pass that `temper plan` times."""


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
        TemperError: shards, weights or the folder are not usable, the workers find no room, or the run cannot
            be resumed.
    """
    with hold_run(out):
        return _launch(recipe, out, pretrain, on_epoch, verbose)


def _launch(
    recipe: Recipe, out: Path, pretrain: Path | None, on_epoch: OnEpoch | None, verbose: bool
) -> TrainState:
    with mirrored(out) as folder:
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
            check_room(recipe.workers)
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


def check_model(recipe: Recipe, data: OpenData) -> list[PhasePlan]:
    """Build the model, its evaluation and its phases once here, before workers are requested; the phases.

    Raises:
        ModelError: weights that are missing, damaged, or of another backbone; an adapter that does not fit.
        RecipeError: a schedule that the backbone's groups do not allow, or an attack suite that is not there.
    """
    recipe.evaluation.plan(recipe.threat, recipe.seed)
    model = build_model(recipe.model, data.classes, image_size=recipe.data.image_size, seed=recipe.seed)
    return plan_phases(recipe, model)


def plan_run(recipe: Recipe) -> tuple[list[PhasePlan], Estimate]:
    """The phases that ``launch`` would train, and their estimated cost; nothing is downloaded for it.

    Raises:
        TemperError: the shards, the weights, the adapter or the schedule do not fit.
    """
    data, weights = open_data(recipe), recipe.model.weights
    bare = recipe.model.model_copy(update={"weights": None, "sha256": None})
    without = recipe.model_copy(update={"model": bare})
    if weights == "pretrained" or (weights is not None and is_url(weights)):
        recipe = without
    plans = check_model(recipe, data)
    return plans, estimate_cost([without], data, 1, max_images=MAX_TIMED)


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
        with mirrored(folder) as place:
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
    state = read_last(RunFolder(fetched_state(folder)))
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
