"""The commands around a sweep: running one, resuming it, showing what it found."""

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from temper.cli.options import GoOn, Json, Set, Verbose, app
from temper.cli.results import board_table
from temper.cli.show import finish, percent, say, table_of
from temper.errors import UsageError

if TYPE_CHECKING:
    from temper.api.sweeps import SweepResult


NUM_EXAMPLES = 5
"""Points shown of a search that chooses as it goes."""


class RunsByDefault(TyperGroup):
    """``temper sweep RECIPE SPACE`` without a command's name is ``temper sweep run RECIPE SPACE``.

    ``--resume=OUT``, from when that option took a value, is ``--resume OUT``.
    """

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        args = [part for word in args for part in re.split(r"(?<=^--resume)=", word, maxsplit=1)]
        if not args or args[0] not in self.commands:
            args = ["run", *args]
        return list(super().parse_args(ctx, args))


sweeps = typer.Typer(
    cls=RunsByDefault,
    rich_markup_mode=None,
    help="Search a space around a recipe and rank the finalists. Explains what was found.",
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(sweeps, name="sweep")


@sweeps.command(
    epilog="Example: temper sweep jobs/recipes/digits.yaml search_spaces/joint.yaml --samples 24. "
    "`temper sweep show OUT` explains a sweep, even while it runs."
)
def run(
    recipe: Annotated[Path | None, typer.Argument(help="The recipe to vary.")] = None,
    space: Annotated[Path | None, typer.Argument(help="The search space's YAML file.")] = None,
    overrides: Set = None,
    samples: Annotated[int | None, typer.Option(min=1, help="Number of trials; not for a grid.")] = None,
    max_minutes: Annotated[float | None, typer.Option(min=0.01, help="Time limit for all trials.")] = None,
    out: Annotated[Path | None, typer.Option(help="Sweep folder. [default: runs/NAME-sweep]")] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Resume if OUT holds this sweep; `--resume OUT` needs no recipe.")
    ] = False,
    go_on: GoOn = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show trials and cost; run nothing.")] = False,
    as_json: Json = False,
    verbose: Verbose = False,
) -> None:
    """Search a space around a recipe, and rank the finalists. (default command)"""
    changes = {"samples": samples, "max_minutes": max_minutes}
    changes = {name: value for name, value in changes.items() if value is not None}
    resume = resume or go_on
    if resume and recipe is not None and space is None and not recipe.is_file():
        if overrides or out is not None or dry_run:
            raise UsageError(
                "--resume OUT takes the sweep's folder alone; only --samples and --max-minutes can change"
            )
        _resume(recipe, changes, as_json, verbose)
        return
    if recipe is None or space is None:
        raise UsageError("temper sweep needs a recipe and a search space, or --resume OUT")
    held = _held(out, recipe, space, overrides or []) if resume and not dry_run else None
    if held is not None:
        _resume(held, changes, as_json, verbose)
        return
    _run(recipe, space, overrides or [], changes, out, dry_run, as_json, verbose)


def _held(out: Path | None, recipe: Path, space: Path, overrides: list[str]) -> Path | None:
    """The folder where a sweep of this recipe and space was begun: ``out``, or the one by default.

    Raises:
        UsageError: one of another recipe or space was.
    """
    from temper.recipe import build_recipe
    from temper.records import SweepFolder
    from temper.search import load_space
    from temper.spec import apply_overrides, parse_assignments, read_yaml

    document = apply_overrides(read_yaml(recipe), parse_assignments(overrides))
    asked = build_recipe(document, where=str(recipe))
    folder = out or Path("runs") / f"{asked.name}-sweep"
    paths = SweepFolder(folder)
    if not any(path.exists() for path in (paths.ledger, paths.points, paths.summary)):
        return None
    same_recipe = asked.hash == build_recipe(read_yaml(paths.recipe), where=str(paths.recipe)).hash
    # As it was written, or as it is read: earlier versions left out what is null.
    spaces = load_space(space).document(), read_yaml(paths.space), load_space(paths.space).document()
    # How many trials, and for how long, may change on the way; what is null need not be written.
    may_differ = ("samples", "max_minutes")
    told, *held = (
        {name: value for name, value in one.items() if name not in may_differ and value is not None}
        for one in spaces
    )
    if not same_recipe or told not in held:
        raise UsageError(f"{folder}: holds a sweep of another recipe or space; choose another --out")
    return folder


def _run(
    recipe: Path,
    space: Path,
    overrides: list[str],
    changes: dict[str, Any],
    out: Path | None,
    dry_run: bool,
    as_json: bool,
    verbose: bool,
) -> None:
    from temper.spec import parse_assignments

    changed = parse_assignments(overrides)
    if dry_run:
        from temper.search import load_space
        from temper.spec import apply_overrides, read_yaml

        document = apply_overrides(read_yaml(recipe), changed)
        _show_plan(document, load_space(space, changes), str(recipe), str(space), as_json)
        return

    from temper.api.sweeps import sweep
    from temper.cli.watch import watching

    with watching() as watch:
        result = sweep(recipe, space, out, overrides=changed, watch=watch, verbose=verbose, **changes)
    _finish(result, as_json)


def _resume(folder: Path, changes: dict[str, Any], as_json: bool, verbose: bool) -> None:
    from temper.api.sweeps import resume_sweep
    from temper.cli.watch import watching

    with watching() as watch:
        result = resume_sweep(folder, watch=watch, verbose=verbose, **changes)
    _finish(result, as_json)


def _finish(result: "SweepResult", as_json: bool) -> None:
    """A table, and where things are."""
    from temper.explain import diverged

    record = result.record
    summary = {**record.model_dump(), "page": str(result.page), "report": str(result.report.page)}
    finish(summary, board_table(result.leaderboard), as_json=as_json)
    say(
        f"{record.num_trials} trials: {record.num_finished} finished, {record.num_stopped} stopped early, "
        f"{record.num_failed} failed"
    )
    if told := diverged(result.report):
        say(told)
    if record.proxy is not None and record.proxy.warning is not None:
        say(f"warning: {record.proxy.warning}")
    say(f"sweep: {result.path}\nreport: {result.report.page}\nleaderboard: {result.page}")


def _show_plan(document: Any, space: Any, recipe: str, where: str, as_json: bool) -> None:
    from temper.cli.watch import settings
    from temper.cluster.estimate import estimate_cost
    from temper.recipe import build_recipe
    from temper.run.open_data import open_data
    from temper.search import baseline_trial, check_space

    build_recipe(document, where=recipe)
    trials = check_space(space, document, where)
    is_chosen_later = space.search in ("tpe", "nsga2")
    baseline = baseline_trial(space, document, where)
    count = (space.samples if is_chosen_later else len(trials)) + (baseline is not None)
    estimate = estimate_cost([one.recipe for one in trials], open_data(trials[0].recipe), count)
    shown = trials[:NUM_EXAMPLES] if is_chosen_later else trials
    rows = [[trial.trial, trial.recipe.epochs, settings(trial.overrides)] for trial in shown]
    if baseline is not None:
        rows.insert(0, [baseline.trial, baseline.recipe.epochs, settings(baseline.overrides)])
    title = f"{count} trials"
    if is_chosen_later:
        title += f", chosen by {space.search} as results come in; for example"
    planned = [{"trial": trial.trial, "overrides": trial.overrides} for trial in shown]
    summary = {"trials": planned, "estimate": estimate.model_dump()}
    finish(summary, table_of(title, ["trial", "epochs", "settings"], rows), as_json=as_json)
    stops = "" if space.scheduler is None else f"; {space.scheduler.kind} may stop most of them early"
    say(
        f"estimated: {estimate.num_passes:.3g} image passes, {estimate.compute_s / 60:.1f} minutes of "
        f"one worker at {1e6 * estimate.seconds_per_pass:.0f} µs each on this machine, without evaluation"
        f"{stops}"
    )


@sweeps.command(epilog="Example: temper sweep show runs/digits-sweep")
def show(
    folder: Annotated[Path, typer.Argument(metavar="OUT", help="The sweep folder.")],
    as_json: Json = False,
    verbose: Verbose = False,
) -> None:
    """Explain a sweep from its ledger: front, importance, cost, best recipes. Works while it runs."""
    from temper.cli.watch import settings
    from temper.explain import build_report, diverged
    from temper.storage import fetched, fetched_state, mirrored

    place = fetched(folder)  # whoever runs the sweep goes on writing there
    fetched_state(place / "trials")
    with mirrored(place / "report"):
        report = build_report(place)
    rows = [
        [
            one.trial,
            percent(one.clean_acc),
            percent(one.robust_acc),
            percent(one.source_acc),
            percent(one.suite.robust_acc.value if one.suite else None),
            settings(one.parameters),
        ]
        for one in (report.trial(best.trial) for best in report.best)
    ]
    columns = ["trial", "clean", "robust", "source", "robust, suite", "settings"]
    title = f"{report.name}: {len(report.trials)} trials, best first by {report.metric}"
    finish(report.model_dump(mode="json"), table_of(title, columns, rows), as_json=as_json)
    if told := diverged(report):
        say(told)
    say(f"report: {report.page}\nrecipes: {report.page.parent / 'best'}")
