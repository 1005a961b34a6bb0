"""The command that measures how much a recipe's numbers depend on the fold, the seed and the target."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from temper.cli.options import Json, Set, Verbose, app
from temper.cli.show import finish, percent, say, table_of
from temper.errors import UsageError

if TYPE_CHECKING:
    from temper.records import CrossvalRecord, FoldRun, Spread


Folds = Annotated[int | None, typer.Option(min=2, max=1000, help="Number of stratified folds. [default: 5]")]
Seeds = Annotated[int, typer.Option(min=1, max=1000, help="Number of seeds, each a run on every fold.")]
Target = Annotated[
    list[Path] | None, typer.Option(help="Shards to run on; repeatable. [default: the recipe's]")
]
KeepTest = Annotated[
    bool, typer.Option("--keep-test", help="Exclude the official test images from all folds.")
]
BySite = Annotated[
    bool, typer.Option("--by-site", help="Leave out one site at a time, in place of stratified folds.")
]


@app.command(epilog="Example: temper crossval jobs/recipes/medical.yaml --folds 5 --seeds 3")
def crossval(
    recipe: Annotated[Path, typer.Argument(help="The recipe's YAML file.")],
    folds: Folds = None,
    seeds: Seeds = 3,
    target: Target = None,
    keep_test: KeepTest = False,
    by_site: BySite = False,
    overrides: Set = None,
    out: Annotated[Path | None, typer.Option(help="Output folder. [default: runs/NAME-crossval]")] = None,
    as_json: Json = False,
    verbose: Verbose = False,
) -> None:
    """Train and evaluate a recipe on every fold and seed. Run the same command again to resume."""
    if by_site and folds is not None:
        raise UsageError("--by-site: there are as many folds as sites; leave out --folds")
    from temper.recipe import build_recipe
    from temper.spec import apply_overrides, parse_assignments, read_yaml

    document = apply_overrides(read_yaml(recipe), parse_assignments(overrides or []))
    name = build_recipe(document, where=str(recipe)).name
    folder = out or Path("runs") / f"{name}-crossval"

    from temper.cluster.crossval import CrossvalSpec
    from temper.cluster.crossval import crossval as run_crossval

    record = run_crossval(
        document,
        CrossvalSpec(
            folds=folds or 5, seeds=seeds, targets=tuple(target or ()), keep_test=keep_test, by_site=by_site
        ),
        folder,
        where=str(recipe),
        on_run=_print_run,
        on_stage=say,
        verbose=verbose,
    )
    summary = {"crossval": str(folder / "crossval.json"), **record.model_dump(mode="json")}
    finish(summary, _table(record), as_json=as_json)
    say(f"crossval: {folder / 'crossval.json'}\nplot: {folder / 'crossval.png'}")


def _print_run(run: "FoldRun", done: int, total: int) -> None:
    result = run.error or f"clean {percent(run.clean_acc)}  robust {percent(run.robust_acc)}"
    fold = f"fold {run.fold + 1}" if run.site is None else f"site {run.site}"
    place = f"{run.target}  {fold}  seed {run.seed}"
    say(f"run {done}/{total}  {place}  {run.status}  {result}")


def _table(record: "CrossvalRecord") -> Any:
    """Means with their intervals and spreads, in percent."""
    rows: list[list[object]] = []
    for target in record.targets:
        for name, measure in (("clean", "clean_acc"), ("robust", "robust_acc")):
            spread = target.measures.get(measure)
            rows.append([f"{target.target}, {name}", *_cells(spread)])
    for name, measure in (("clean", "clean_acc"), ("robust", "robust_acc")):
        over = record.over_targets.get(measure)
        if over is not None:
            rows.append([f"{over.num_targets} targets, {name}", percent(over.mean), "", "", ""])
    columns = ["accuracy", "mean", "95 % interval", "± folds", "± seeds"]
    folds = f"{record.folds} {'sites' if record.by_site else 'folds'}"
    title = f"{record.name}, {record.threat.label}: {folds}, {len(record.seeds)} seeds"
    return table_of(title, columns, rows)


def _cells(spread: "Spread | None") -> list[str]:
    if spread is None:
        return ["–"] * 4
    interval = spread.interval
    ends = "–" if interval is None else f"{percent(interval.low)} to {percent(interval.high)}"
    return [percent(spread.mean), ends, percent(spread.std_folds), percent(spread.std_seeds)]
