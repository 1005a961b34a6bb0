"""A sweep: many trials of one recipe on Ray Tune, a ledger of them, and the finalists' records."""

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from temper.cluster.feeds import OpenData, decode_splits, open_data
from temper.cluster.launch import check_model, start_weights
from temper.cluster.runtime import num_cpus, start_ray, wants_gpu
from temper.cluster.search_space import SearchSpace, build_trials
from temper.cluster.trial import (
    BASELINE,
    LedgerCallback,
    Planned,
    Shared,
    build_scheduler,
    evaluate_all,
    run_trial,
)
from temper.cluster.workers import OnEpoch
from temper.errors import CheckpointError, SearchSpaceError, TrainingError
from temper.recipe import Recipe, build_recipe, pretrain_recipe
from temper.records import LedgerRow, SweepFolder, SweepRecord, read_ledger, write_atomic
from temper.spec import dump_yaml

NESTED = {"cpu": 0, "memory": 1}
"""What a trial asks for beside its workers: something, for Tune refuses nothing at all."""

OnTrial = Callable[[LedgerRow, int], None]
"""Called when a trial has ended, with the number of all trials."""


def sweep(
    document: Mapping[str, Any],
    space: SearchSpace,
    out: Path,
    *,
    where: str = "space",
    on_trial: OnTrial | None = None,
    on_epoch: OnEpoch | None = None,
    on_stage: Callable[[str], None] | None = None,
    verbose: bool = False,
) -> SweepRecord:
    """Run the trials of ``space`` around the recipe ``document``, then evaluate finalists and baseline.

    Raises:
        TemperError: a point that is no recipe, images that cannot be used, a folder that is taken, or no
            trial that finished.
    """
    started = time.perf_counter()
    folder = SweepFolder(out)
    planned = plan(document, space, where, out.resolve().name)
    recipe = build_recipe(document)
    data = _check(folder, planned, space)
    say = on_stage or (lambda stage: None)
    start_ray(verbose=verbose)
    write_atomic(folder.recipe, dump_yaml(recipe.resolved()))
    write_atomic(folder.space, dump_yaml(space.model_dump(mode="json", exclude_none=True)))
    say("pretraining the start on the source task" if recipe.pretrain else "decoding images")
    starts = _pretrain(folder, planned, on_epoch, verbose)
    say(f"running {len(planned)} trials")
    shared = Shared(data, decode_splits(recipe, data, with_ray=True), starts)
    run_trials(folder, space, planned, shared, on_trial)
    finalists = choose_finalists(folder, space)
    say(f"evaluating {len(finalists)} models")
    evaluate_all([folder.trial(name) for name in finalists], recipe)
    summary = _summarise(folder, recipe, space, finalists, time.perf_counter() - started)
    write_atomic(folder.summary, summary.model_dump_json(indent=2) + "\n")
    return summary


def plan(document: Mapping[str, Any], space: SearchSpace, where: str, sweep_name: str) -> list[Planned]:
    """Every trial with its recipe, the baseline first, all validated; grouped under ``sweep_name``."""
    planned = [Planned(*trial) for trial in build_trials(space, document, where)]
    if space.baseline is not None:
        recipe = build_recipe(document, space.baseline, f"{where}: baseline")
        planned.insert(0, Planned(BASELINE, space.baseline, recipe))
    return [Planned(p.trial, p.overrides, _named(p.recipe, p.trial, sweep_name)) for p in planned]


def _named(recipe: Recipe, trial: str, sweep_name: str) -> Recipe:
    """The trial's name and tracking group, neither of which counts for the hash."""
    group = sweep_name if sweep_name.startswith(recipe.name) else f"{recipe.name}-{sweep_name}"
    tracking = recipe.tracking.model_copy(update={"group": recipe.tracking.group or group})
    return recipe.model_copy(update={"name": f"{recipe.name}-{trial}", "tracking": tracking})


def _check(folder: SweepFolder, planned: list[Planned], space: SearchSpace) -> OpenData:
    """Refuse, before anything is started, what could not end well."""
    if folder.ledger.exists() or folder.summary.exists():
        raise CheckpointError(f"{folder.path}: holds a sweep already; choose another --out, or remove it")
    first = planned[0].recipe
    for trial in planned:
        if trial.recipe.data != first.data:
            raise SearchSpaceError("parameters: a sweep cannot vary 'data', which its trials share")
        if trial.recipe.workers != first.workers:
            raise SearchSpaceError("parameters: a sweep cannot vary 'workers'")
        if "robust" in space.metric and trial.recipe.validation.steps == 0:
            raise SearchSpaceError(f"metric: validation.steps: 0 steps measure no {space.metric}")
        if space.scheduler is not None and trial.recipe.validation.is_asynchronous:
            raise SearchSpaceError(
                f"scheduler: {space.scheduler.kind} compares trials after each epoch, and "
                "validation.is_asynchronous: true answers later; set one of them to null or false"
            )
    data = open_data(first)
    checked: list[Any] = []
    for trial in planned:
        built = (trial.recipe.model, trial.recipe.schedule, trial.recipe.epochs)
        if built not in checked:
            check_model(trial.recipe, data)
            checked.append(built)
    return data


def _pretrain(
    folder: SweepFolder, planned: list[Planned], on_epoch: OnEpoch | None, verbose: bool
) -> dict[str, str | None]:
    """Trial -> start weights; trials whose pretraining is the same share it."""
    starts: dict[str, str | None] = {}
    for trial in planned:
        hashed = pretrain_recipe(trial.recipe).hash if trial.recipe.pretrain else ""
        target = folder.pretrain / hashed
        starts[trial.trial] = start_weights(trial.recipe, target, on_epoch=on_epoch, verbose=verbose)
    return starts


def run_trials(
    folder: SweepFolder,
    space: SearchSpace,
    planned: list[Planned],
    shared: Shared,
    on_trial: OnTrial | None,
) -> None:
    """All trials through Ray Tune; the ledger has a row for each when this returns."""
    from ray import tune

    recipe = planned[0].recipe
    workers = recipe.workers
    use_gpu = wants_gpu(workers.use_gpu)
    trainable = tune.with_parameters(run_trial, folder=str(folder.path.resolve()), shared=shared)
    per_worker = {"cpu": workers.cpus_per_worker, "gpu": 1 if use_gpu else 0}
    own = per_worker if workers.num_workers == 0 else NESTED
    ledger = LedgerCallback(folder, {p.trial: p for p in planned}, on_trial)
    tuner = tune.Tuner(
        tune.with_resources(trainable, own),
        param_space={
            "trial": tune.grid_search([p.trial for p in planned]),
            "recipes": {p.trial: p.recipe.resolved() for p in planned},
            "metric": space.metric,
        },
        tune_config=tune.TuneConfig(
            scheduler=build_scheduler(space, recipe.epochs),
            reuse_actors=workers.num_workers == 0,
            max_concurrent_trials=max_concurrent(recipe),
            trial_dirname_creator=lambda trial: str(trial.trial_id),
        ),
        run_config=tune.RunConfig(
            name="tune",
            storage_path=str((folder.path / ".ray").resolve()),
            callbacks=[ledger],
            verbose=0,
            failure_config=tune.FailureConfig(max_failures=0),
        ),
    )
    tuner.fit()


def max_concurrent(recipe: Recipe) -> int:
    """Trials that fit on the cluster at once: Tune does not see the CPUs of nested workers.

    Raises:
        SearchSpaceError: not even one fits.
    """
    workers = recipe.workers
    needed = max(1, workers.num_workers) * workers.cpus_per_worker
    fitting = num_cpus() // needed
    if fitting == 0:
        raise SearchSpaceError(
            f"workers: a trial needs {needed} CPUs, the cluster has {num_cpus()}; "
            "lower cpus_per_worker or num_workers"
        )
    return fitting


def choose_finalists(folder: SweepFolder, space: SearchSpace) -> list[str]:
    """The baseline and the best finished trials by the validation metric, best first.

    Raises:
        TrainingError: no trial finished.
    """
    rows = read_ledger(folder.ledger)
    finished = [row for row in rows if row.status == "finished" and row.trial != BASELINE]
    if not finished:
        reasons = (
            "; ".join(sorted({row.error.splitlines()[-1] for row in rows if row.error})) or "none was run"
        )
        raise TrainingError(f"{folder.path}: no trial finished ({reasons}); see {folder.ledger}")
    finished.sort(key=lambda row: (-row.metrics[f"best/{space.metric}"], row.trial))
    baseline = [row.trial for row in rows if row.trial == BASELINE and row.status == "finished"]
    return [row.trial for row in finished[: space.finalists]] + baseline


def _summarise(
    folder: SweepFolder, recipe: Recipe, space: SearchSpace, finalists: list[str], seconds: float
) -> SweepRecord:
    rows = read_ledger(folder.ledger)
    count = {
        status: sum(row.status == status for row in rows) for status in ("finished", "stopped", "failed")
    }
    return SweepRecord(
        name=recipe.name,
        metric=space.metric,
        num_trials=len(rows),
        num_finished=count["finished"],
        num_stopped=count["stopped"],
        num_failed=count["failed"],
        finalists=finalists,
        best=finalists[0] if finalists else None,
        seconds=seconds,
    )
