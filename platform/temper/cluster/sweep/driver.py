"""A sweep from its first check to its summary, and its resumption."""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from temper.cluster.claim import refuse_former_batches
from temper.cluster.datasets import decode_splits
from temper.cluster.evaluation_tasks import evaluate_all
from temper.cluster.holding import hold
from temper.cluster.launch import check_model, start_probe, start_weights
from temper.cluster.resources import max_concurrent
from temper.cluster.runtime import start_ray
from temper.cluster.sweep.summary import read_summary, write_summary
from temper.cluster.sweep.trial import Shared, origin_key, start_key
from temper.cluster.sweep.trial_store import TrialStore, Watch
from temper.errors import CheckpointError, Interrupted, TrainingError
from temper.recipe import Recipe, build_recipe, probe_recipe
from temper.records import LedgerRow, RunFolder, SweepFolder, SweepRecord, discard_leftovers, write_atomic
from temper.run.open_data import OpenData, check_batch_sizes, open_data
from temper.search import BASELINE, SearchSpace, Trial, check_space, choose_finalists, load_space
from temper.spec import dump_yaml, read_yaml
from temper.storage import fetched_state, mirrored
from temper.training import Origin, read_last

if TYPE_CHECKING:
    from temper.cluster.sweep.session import Halt

NUM_REASONS = 3
"""Errors named where no trial finished; the ledger has all."""


def sweep(
    document: Mapping[str, Any],
    space: SearchSpace,
    out: Path,
    *,
    where: str = "space",
    watch: Watch | None = None,
    verbose: bool = False,
) -> SweepRecord:
    """Run the trials of ``space`` around the recipe ``document``, then evaluate finalists and baseline.

    Raises:
        TemperError: a point that is no recipe, images that cannot be used, trials that do not fit on the
            cluster, a folder that is taken, or no trial that finished.
        Interrupted: by Ctrl-C; ``resume`` continues.
    """
    with mirrored(out) as place:
        return _sweep(SweepFolder(place), document, space, where, watch or Watch(), verbose)


def _sweep(
    folder: SweepFolder,
    document: Mapping[str, Any],
    space: SearchSpace,
    where: str,
    watch: Watch,
    verbose: bool,
) -> SweepRecord:
    started = time.monotonic()
    recipe = build_recipe(document)
    trials = check_space(space, document, where)
    if any(path.exists() for path in (folder.ledger, folder.points, folder.summary)):
        raise CheckpointError(
            f"{folder.path}: already holds a sweep; resume it with `temper sweep --resume {folder.path}`, "
            "or repeat it with another --out"
        )
    data = _check(trials)
    start_ray(verbose=verbose)
    max_concurrent(recipe.workers)
    with hold(folder.lock, "running this sweep"):
        write_atomic(folder.recipe, dump_yaml(recipe.resolved()))
        write_atomic(folder.space, dump_yaml(space.document()))
        return _finish(folder, recipe, space, data, where, started, watch, verbose)


def resume(
    out: Path,
    changes: Mapping[str, Any] | None = None,
    *,
    watch: Watch | None = None,
    verbose: bool = False,
) -> SweepRecord:
    """Resume the sweep in ``out``: ended trials stay, started ones resume from their last epoch.

    Nothing but the folder is needed. ``changes`` replaces ``samples`` or ``max_minutes`` of its space.

    Raises:
        CheckpointError: no sweep here, or another process is running it.
        TemperError: as ``sweep``.
    """
    with mirrored(out) as place:
        fetched_state(SweepFolder(place).trials)
        return _resume(SweepFolder(place), changes, watch or Watch(), verbose)


def _resume(
    folder: SweepFolder, changes: Mapping[str, Any] | None, watch: Watch, verbose: bool
) -> SweepRecord:
    started = time.monotonic()
    if not (folder.recipe.exists() and folder.space.exists()):
        raise CheckpointError(
            f"{folder.path}: holds no sweep ({folder.recipe.name} and {folder.space.name} are needed)"
        )
    space = load_space(folder.space, changes)
    recipe = build_recipe(read_yaml(folder.recipe), where=str(folder.recipe))
    trials = check_space(space, recipe.resolved(), str(folder.space))
    data = _check(trials)
    for path in folder.trials.glob("*"):
        refuse_former_batches(path, read_last(RunFolder(path)), recipe)
    start_ray(verbose=verbose)
    max_concurrent(recipe.workers)
    with hold(folder.lock, "running this sweep"):
        write_atomic(folder.space, dump_yaml(space.document()))
        return _finish(folder, recipe, space, data, str(folder.space), started, watch, verbose)


def _check(trials: list[Trial]) -> OpenData:
    """Refuse, before anything starts, what is bound to fail."""
    data = open_data(trials[0].recipe)
    checked: list[Any] = []
    for trial in trials:
        check_batch_sizes(trial.recipe)
        built = (trial.recipe.model, trial.recipe.schedule, trial.recipe.epochs)
        if built not in checked:
            check_model(trial.recipe, data)
            checked.append(built)
    return data


def _finish(
    folder: SweepFolder,
    recipe: Recipe,
    space: SearchSpace,
    data: OpenData,
    where: str,
    started: float,
    watch: Watch,
    verbose: bool,
) -> SweepRecord:
    """Run what is left, and write the summary."""
    book = TrialStore(folder, space, recipe.resolved(), where)
    done = read_summary(folder)
    if done is not None and done.is_complete and book.is_finished:
        return done
    if not book.is_finished:
        _run_trials(book, recipe, data, started, watch, verbose)
    rows = list(book.rows.values())
    finalists = choose_finalists(rows, space)
    if not [name for name in finalists if name != BASELINE]:
        raise TrainingError(f"{folder.path}: no trial finished ({_why_none(rows)}); see {folder.ledger}")
    _evaluate([*(folder.trial(name) for name in finalists), *_probes(book, finalists)], recipe, watch)
    return write_summary(book, recipe, finalists, time.monotonic() - started)


def _why_none(rows: Sequence[LedgerRow]) -> str:
    """Why no trial finished: one trial's error for all that diverged, a few others."""
    searched = [row for row in rows if row.trial != BASELINE]
    diverged = [row for row in searched if row.has_diverged]
    reasons = list(dict.fromkeys(row.error for row in searched if row.error and not row.has_diverged))
    told = reasons[:NUM_REASONS]
    if diverged:
        first = min(diverged, key=lambda row: row.trial)
        how_many = f"all {len(searched)}" if len(diverged) == len(searched) else f"{len(diverged)}"
        _, _, why = (first.error or "").partition(": ")
        told.insert(0, f"{how_many} diverged; in trial {first.trial} {why}")
    return "; ".join(told) or "none ended in time"


def _run_trials(
    book: TrialStore, recipe: Recipe, data: OpenData, started: float, watch: Watch, verbose: bool
) -> None:
    from temper.cluster.sweep.session import run_session

    minutes = book.space.max_minutes
    deadline = None if minutes is None else started + 60 * minutes
    watch.on_stage("pretraining the start on the source task" if recipe.pretrain else "decoding images")
    decoded = decode_splits(recipe, data, with_ray=True)
    shared = Shared(data, decoded, _origins(book, recipe.name, data, decoded, watch, verbose))
    num_ended = len(book.rows)
    again = f", {num_ended} already ended" if num_ended else ""
    watch.on_stage(f"running {book.total} trials{again}")
    tell_halt(run_session(book, recipe, shared, deadline, watch), book, watch)


def tell_halt(halt: "Halt", book: TrialStore, watch: Watch) -> None:
    """Where trials are left, say how many ended and what runs the rest.

    Raises:
        Interrupted: by Ctrl-C.
    """
    command = f"temper sweep --resume {book.folder.path}"
    ended = f"{len(book.rows)} of {book.total} trials ended"
    if halt.is_interrupted:
        raise Interrupted(
            f"interrupted: {ended}, nothing is lost; resume with `{watch.resume_command or command}`"
        )
    if halt.is_late:
        rest = watch.resume_command or f"{command} --max-minutes MINUTES"
        watch.on_stage(
            f"time is up after {book.space.max_minutes:g} minutes: {ended}; run the rest with `{rest}`"
        )


def _origins(
    book: TrialStore, name: str, data: OpenData, decoded: dict[str, Any], watch: Watch, verbose: bool
) -> dict[str, Origin]:
    """The starts of trials by ``origin_key``: those known in advance, each trained once.

    Probes, which belong to no single trial, are named after the sweep's recipe, ``name``.
    """
    starts: dict[str, str | None] = {}
    origins: dict[str, Origin] = {}
    for trial in book.known_trials:
        recipe, key = trial.recipe, start_key(trial.recipe)
        if key not in starts:
            target = book.folder.pretrain / key if recipe.pretrain else book.folder.pretrain
            starts[key] = start_weights(recipe, target, on_epoch=watch.on_epoch, verbose=verbose)
        if origin_key(recipe) not in origins:
            folder = book.folder.probe / probe_recipe(recipe).hash
            shared = recipe.model_copy(update={"name": name})
            origins[origin_key(recipe)] = start_probe(
                shared, folder, data, decoded, starts[key], on_epoch=watch.on_epoch
            )
    return origins


def _probes(book: TrialStore, names: list[str]) -> list[RunFolder]:
    """The linear probes that trials share, of those trials alone."""
    hashes = sorted({probe_recipe(book.trial(name).recipe).hash for name in names})
    found = [RunFolder(fetched_state(book.folder.probe / one)) for one in hashes]
    return [run for run in found if run.recipe.exists()]


def _evaluate(runs: list[RunFolder], recipe: Recipe, watch: Watch) -> None:
    to_do = [run for run in runs if not RunFolder(fetched_state(run.path)).record.exists()]
    if not to_do:
        return
    watch.on_stage(f"evaluating {len(to_do)} models")
    for run in to_do:
        discard_leftovers(run)
    evaluate_all(to_do, recipe, lambda done: watch.on_stage(f"evaluated {done} of {len(to_do)} models"))
    for run in to_do:
        fetched_state(run.path)
