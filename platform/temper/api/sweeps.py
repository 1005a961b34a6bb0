"""Searching a space around a recipe from code."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from temper.cluster.sweep import Watch
from temper.cluster.sweep import resume as resume_trials
from temper.cluster.sweep import sweep as run_trials
from temper.explain import SweepReport, build_report
from temper.leaderboard import LeaderboardSummary, build_leaderboard
from temper.recipe import Recipe, build_recipe, load_recipe
from temper.records import SweepFolder, SweepRecord, read_ledger
from temper.search import SearchSpace, group_of, load_space, refuse_samples_of_a_grid
from temper.spec import apply_overrides, read_yaml, validate
from temper.storage import mirrored
from temper.tracking import track_sweep


@dataclass(frozen=True)
class SweepResult:
    """The result of a sweep."""

    path: Path
    """Its folder; a trial's run lies under ``trials/NAME``."""
    record: SweepRecord
    leaderboard: LeaderboardSummary
    report: SweepReport
    page: Path
    """The leaderboard of its finalists; ``report.page`` explains the search."""

    @property
    def best(self) -> Path:
        """The run folder of the best finalist; a sweep without one ends with an error."""
        assert self.record.best is not None
        return SweepFolder(self.path).trial(self.record.best).path


def sweep(
    recipe: Recipe | str | Path,
    space: SearchSpace | str | Path,
    out: str | Path | None = None,
    *,
    overrides: Mapping[str, Any] | None = None,
    samples: int | None = None,
    max_minutes: float | None = None,
    watch: Watch | None = None,
    verbose: bool = False,
) -> SweepResult:
    """Search ``space`` around ``recipe`` in ``out`` (default ``runs/NAME-sweep``), and rank the finalists.

    Both may be loaded or YAML files; ``overrides`` are dotted fields of the recipe, ``samples`` and
    ``max_minutes`` replace those of the space. ``watch`` reports progress.

    Raises:
        TemperError: as ``temper sweep``; raised before anything starts if possible.
        Interrupted: by Ctrl-C; ``resume_sweep`` continues.
    """
    document = recipe.resolved() if isinstance(recipe, Recipe) else read_yaml(Path(recipe))
    where = "recipe" if isinstance(recipe, Recipe) else str(recipe)
    document = apply_overrides(document, overrides or {})
    name = build_recipe(document, where=where).name
    changes = _changes(samples, max_minutes)
    if isinstance(space, SearchSpace):
        searched, place = validate(SearchSpace, {**space.document(), **changes}, "space"), "space"
        refuse_samples_of_a_grid(searched, changes, place)
    else:
        searched, place = load_space(Path(space), changes), str(space)
    folder = Path(out) if out is not None else Path("runs") / f"{name}-sweep"
    record = run_trials(document, searched, folder, where=place, watch=watch, verbose=verbose)
    return _conclude(record, folder)


def resume_sweep(
    out: str | Path,
    *,
    samples: int | None = None,
    max_minutes: float | None = None,
    watch: Watch | None = None,
    verbose: bool = False,
) -> SweepResult:
    """Resume the sweep in ``out``; nothing else is needed. See ``sweep``.

    Raises:
        CheckpointError: there is no sweep here, or another process is running it.
        TemperError: as ``sweep``.
    """
    folder = Path(out)
    record = resume_trials(folder, _changes(samples, max_minutes), watch=watch, verbose=verbose)
    return _conclude(record, folder)


def _changes(samples: int | None, max_minutes: float | None) -> dict[str, Any]:
    changes = {"samples": samples, "max_minutes": max_minutes}
    return {name: value for name, value in changes.items() if value is not None}


def _conclude(record: SweepRecord, folder: Path) -> SweepResult:
    """Both pages, and the sweep as a run of its own in W&B, where its trials have theirs."""
    with mirrored(folder) as place:
        paths = SweepFolder(place)
        board = build_leaderboard(paths.boarded, paths.leaderboard)
        report = build_report(place)
        _track(paths, report.page)
    return SweepResult(folder, record, board, report, paths.leaderboard / "index.html")


def _track(paths: SweepFolder, page: Path) -> None:
    recipe = load_recipe(paths.recipe)
    if recipe.tracking.wandb:
        name = paths.path.resolve().name
        group = group_of(recipe, name)
        track_sweep(paths.path, recipe.tracking.project, group, name, read_ledger(paths.ledger), page)
