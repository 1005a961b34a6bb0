"""The main job on embedded data: digits to shards to a sweep to a leaderboard."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from temper.cluster.sweep import Watch, sweep
from temper.data import write_shards
from temper.digits import write_digits
from temper.errors import CheckpointError, Interrupted
from temper.explain import build_report
from temper.leaderboard import LeaderboardSummary, build_leaderboard
from temper.recipe import build_recipe
from temper.records import SweepFolder, SweepRecord
from temper.search import load_space
from temper.shipped import example
from temper.spec import apply_overrides, read_yaml


@dataclass(frozen=True)
class DemoResult:
    """What the demo made."""

    sweep: SweepRecord
    leaderboard: LeaderboardSummary
    page: Path
    report: Path
    """What the sweep found, as a page."""


def run_demo(
    out: Path,
    changes: Mapping[str, Any] | None = None,
    *,
    watch: Watch | None = None,
    verbose: bool = False,
) -> DemoResult:
    """Everything from images to the page, in ``out``, which must not exist; ``changes`` are of its recipe.

    Raises:
        CheckpointError: ``out`` exists.
        RecipeError: ``changes`` that do not fit.
        Interrupted: by Ctrl-C; of the trials, `temper sweep --resume` runs the rest.
    """
    if out.exists():
        raise CheckpointError(f"{out}: already exists; remove it, or choose another --out")
    recipe, space = example("recipes/digits.yaml"), example("search_spaces/joint.yaml")
    build_recipe(apply_overrides(read_yaml(recipe), changes or {}), where=str(recipe))
    try:
        return _run(out, recipe, space, changes or {}, watch or Watch(), verbose)
    except KeyboardInterrupt:
        first = f"remove {out} and " if out.exists() else ""
        raise Interrupted(f"interrupted: {first}run the same command again") from None


def _run(
    out: Path, recipe: Path, space: Path, changes: Mapping[str, Any], watch: Watch, verbose: bool
) -> DemoResult:
    watch.on_stage("writing scikit-learn's digits as images and as shards")
    overrides = {}
    for task, images in zip(("source", "target"), write_digits(out / "images"), strict=True):
        shards = out / "shards" / images.name
        write_shards(images, shards)
        overrides[f"data.{task}"] = str(shards)
    document = apply_overrides(read_yaml(recipe), {**overrides, **changes})
    folder = SweepFolder(out / "sweep")
    record = sweep(
        document,
        load_space(space),
        folder.path,
        where=str(space),
        watch=watch,
        verbose=verbose,
    )
    summary = build_leaderboard(folder.boarded, folder.leaderboard)
    report = build_report(folder.path).page
    return DemoResult(record, summary, folder.leaderboard / "index.html", report)
