"""Cross-validation: one recipe on every fold of every target, with several seeds, and the record of it."""

import os
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from temper.cluster.crossval.pages import draw_plot, markdown_table
from temper.cluster.crossval.plan import CrossvalSpec, PlannedRun, base_recipe, open_targets, plan
from temper.cluster.crossval.runs import pretrain_start, side_by_side, train_and_evaluate
from temper.cluster.crossval.summary import measures_over_targets, summarise_target
from temper.cluster.runtime import start_ray
from temper.data import ShardSet
from temper.errors import CheckpointError, TrainingError
from temper.recipe import Recipe
from temper.records import (
    CrossvalFolder,
    CrossvalRecord,
    FileRecord,
    FoldRun,
    RunFolder,
    read_record,
    sha256_of,
    write_atomic,
    write_once,
)
from temper.run.environment import describe_environment
from temper.spec import dump_yaml
from temper.storage import fetched_state, mirrored, portable

NUM_REASONS = 3
"""Errors named where no run finished."""
OnRun = Callable[[FoldRun, int, int], None]
"""Called when a run has ended, with the numbers of ended and of all runs."""


def crossval(
    document: Mapping[str, Any],
    spec: CrossvalSpec,
    out: Path,
    *,
    where: str = "recipe",
    on_run: OnRun | None = None,
    on_stage: Callable[[str], None] | None = None,
    verbose: bool = False,
) -> CrossvalRecord:
    """Train and evaluate the recipe ``document`` on every target, fold and seed, side by side on Ray.

    Runs with a record in ``out`` are not repeated, unfinished ones resume; a failed one is recorded with its
    error, and the others continue.

    Raises:
        TemperError: what is no recipe, images that cannot be dealt into folds, a folder that is taken, a
            pretraining that failed, or no run that finished.
    """
    fetched_state(out)
    with mirrored(out, is_flat=True) as place:
        say = on_stage or (lambda _stage: None)
        return _crossval(CrossvalFolder(place), document, spec, where, on_run, say, verbose)


def _crossval(
    folder: CrossvalFolder,
    document: Mapping[str, Any],
    spec: CrossvalSpec,
    where: str,
    on_run: OnRun | None,
    say: Callable[[str], None],
    verbose: bool,
) -> CrossvalRecord:
    started = time.perf_counter()
    base = base_recipe(document, spec, where)
    targets = open_targets(spec, base)
    planned = plan(document, spec, targets, where=where, group=folder.path.resolve().name)
    to_do = _check(folder, planned)
    start_ray(verbose=verbose)
    write_atomic(folder.recipe, dump_yaml(base.resolved()))
    _pretrain(folder, to_do, say)
    say(f"{len(to_do)} runs to do, {len(planned) - len(to_do)} already done")
    runs = _run_all(folder, planned, to_do, on_run)
    record = _make_record(base, spec, targets, planned, runs, time.perf_counter() - started)
    draw_plot(record, folder.plot)
    write_atomic(folder.table, markdown_table(record))
    write_once(folder.record, record.model_dump_json(indent=2) + "\n")
    return record


def _check(folder: CrossvalFolder, planned: Sequence[PlannedRun]) -> list[PlannedRun]:
    """The outstanding runs; refuses a folder that holds something else."""
    if folder.record.exists():
        raise CheckpointError(
            f"{folder.record}: this cross-validation is finished, and its record is never overwritten; "
            "choose another --out, or remove that file to retry what failed"
        )
    return [run for run in planned if not run.is_done(folder)]


def _pretrain(folder: CrossvalFolder, runs: Sequence[PlannedRun], say: Callable[[str], None]) -> None:
    """Train every start that ``runs`` need, each once.

    Raises:
        TrainingError: one failed.
    """
    needed = {path: run.recipe for run in runs if (path := run.pretrain(folder)) is not None}
    if not needed:
        return
    say(f"pretraining {len(needed)} start(s) on the source task")
    jobs = {path: (recipe.resolved(), path) for path, recipe in needed.items()}
    for path, error in side_by_side(pretrain_start, jobs, runs[0].recipe):
        if error is not None:
            raise TrainingError(f"{path}: pretraining failed ({error})")


def _run_all(
    folder: CrossvalFolder,
    planned: Sequence[PlannedRun],
    to_do: Sequence[PlannedRun],
    on_run: OnRun | None,
) -> list[FoldRun]:
    """A row for each planned run, by target, fold and seed.

    Raises:
        TrainingError: none has a record.
    """
    by_key = {run.key: run for run in planned}
    jobs = {
        run.key: (run.recipe.resolved(), portable(run.folder(folder).path), run.pretrain(folder))
        for run in to_do
    }
    rows = {key: _row(folder, run, None) for key, run in by_key.items() if key not in jobs}
    for key, error in side_by_side(train_and_evaluate, jobs, planned[0].recipe):
        rows[key] = _row(folder, by_key[key], error)
        if on_run is not None:
            on_run(rows[key], len(rows), len(planned))
    if all(row.status == "failed" for row in rows.values()):
        reasons = sorted({row.error.splitlines()[-1] for row in rows.values() if row.error})
        more = f"; and {len(reasons) - NUM_REASONS} more" if len(reasons) > NUM_REASONS else ""
        raise TrainingError(f"{folder.path}: no run finished ({'; '.join(reasons[:NUM_REASONS])}{more})")
    targets = list(dict.fromkeys(run.target for run in planned))
    return sorted(rows.values(), key=lambda row: (targets.index(row.target), row.fold, row.seed))


def _row(folder: CrossvalFolder, planned: PlannedRun, error: str | None) -> FoldRun:
    """What the run's record says, or why there is none."""
    target, fold, seed = planned.key
    which: dict[str, Any] = {"target": target, "fold": fold, "site": planned.site, "seed": seed}
    if error is not None:
        return FoldRun(**which, fingerprint=planned.images.fingerprint, status="failed", error=error)
    path = RunFolder(fetched_state(planned.folder(folder).path)).record
    record = read_record(path)
    relative = Path(os.path.relpath(path.resolve(), folder.path.resolve()))
    return FoldRun(
        **which,
        fingerprint=record.data.fingerprint,
        status=record.status,
        clean_acc=record.clean_acc.value,
        robust_acc=record.robust_acc.value,
        balanced_acc=record.balanced_acc,
        robust_balanced_acc=record.robust_balanced_acc,
        num_images=record.data.num_images,
        record=FileRecord(path=relative.as_posix(), sha256=sha256_of(path)),
    )


def _make_record(
    base: Recipe,
    spec: CrossvalSpec,
    targets: Mapping[str, ShardSet],
    planned: Sequence[PlannedRun],
    runs: list[FoldRun],
    seconds: float,
) -> CrossvalRecord:
    summaries = [
        summarise_target(
            shards,
            list({run.fold: run.images for run in planned if run.target == target}.values()),
            [run for run in runs if run.target == target],
        )
        for target, shards in targets.items()
    ]
    return CrossvalRecord(
        name=base.name,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        recipe_hash=base.hash,
        recipe=base.resolved(),
        threat=base.threat.of_evaluation,
        folds=1 + max(run.fold for run in planned),
        fold_seed=base.seed,
        keep_test=spec.keep_test,
        by_site=spec.by_site,
        seeds=list(range(base.seed, base.seed + spec.seeds)),
        targets=summaries,
        runs=runs,
        over_targets=measures_over_targets(summaries),
        seconds=seconds,
        environment=describe_environment(),
    )
