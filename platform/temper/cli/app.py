"""The commands."""

from pathlib import Path
from typing import Annotated, Any

import typer

import temper
from temper.cli.results import board_table, evaluate_somewhere, finish_record, trial_printer
from temper.cli.show import epoch_line, finish, progress_bar, say, table_of

app = typer.Typer(
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # rich help costs as much start-up again as all the rest
    help="Make a pretrained vision model yours, and hard to fool.",
    context_settings={"help_option_names": ["-h", "--help"]},
)

Set = Annotated[
    list[str] | None, typer.Option("--set", metavar="PATH=VALUE", help="Override a recipe field.")
]
Json = Annotated[bool, typer.Option("--json", help="Print the summary as JSON on stdout.")]
Verbose = Annotated[bool, typer.Option("--verbose", help="Show what Ray and the other packages say.")]


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"temper {temper.__version__}")
        raise typer.Exit


@app.callback()
def _main(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print it.")
    ] = False,
) -> None:
    """Options that come before a command."""


@app.command(epilog="Example: temper shards photos shards/photos --size 96")
def shards(
    src: Annotated[Path, typer.Argument(help="Class folders: SRC/train/<class>/* or SRC/<class>/*.")],
    dst: Annotated[Path, typer.Argument(help="The folder of shards to make.")],
    out: Annotated[Path | None, typer.Option(help="The same as DST, which it replaces.")] = None,
    size: Annotated[int | None, typer.Option(min=8, help="Reduce the long side to this, in pixels.")] = None,
    val_frac: Annotated[float, typer.Option("--val", min=0.01, max=0.9, help="Share for validation.")] = 0.15,
    test_frac: Annotated[
        float, typer.Option("--test", min=0.01, max=0.9, help="Share for the test split.")
    ] = 0.2,
    max_bad: Annotated[float, typer.Option(min=0, max=1, help="Stop above this share of bad images.")] = 0.01,
    seed: Annotated[int, typer.Option(min=0, help="Decides the splits.")] = 0,
    as_json: Json = False,
    verbose: Verbose = False,
) -> None:
    """Turn class folders into Parquet shards with a manifest."""
    from temper.data import write_shards

    destination = out or dst
    with progress_bar("images") as update:
        manifest = write_shards(
            src,
            destination,
            size=size,
            seed=seed,
            val_frac=val_frac,
            test_frac=test_frac,
            max_bad_frac=max_bad,
            on_progress=lambda done, total: update(done, total, ""),
        )
    for image in manifest.skipped:
        say(f"skipped {image.path}: {image.reason}")
    splits = list(manifest.counts)
    rows = [[name, *(manifest.counts[split][name] for split in splits)] for name in manifest.classes]
    summary = {"shards": str(destination), **manifest.model_dump(mode="json", exclude={"splits"})}
    finish(
        summary,
        table_of(f"{manifest.name}, {manifest.fingerprint}", ["class", *splits], rows),
        as_json=as_json,
    )
    say(f"shards: {destination}")


@app.command(epilog="Example: temper train jobs/recipes/medical.yaml --set objective.alpha=0.1")
def train(
    recipe: Annotated[Path, typer.Argument(help="The recipe's YAML file.")],
    overrides: Set = None,
    out: Annotated[Path | None, typer.Option(help="The run folder. [default: runs/NAME]")] = None,
    evaluate: Annotated[bool, typer.Option(help="Evaluate the best epoch into a record.")] = True,
    as_json: Json = False,
    verbose: Verbose = False,
) -> None:
    """Train a recipe, and evaluate the result. An interrupted run goes on where it was."""
    from temper.recipe import load_recipe
    from temper.spec import parse_assignments

    spec = load_recipe(recipe, parse_assignments(overrides or []))
    folder = out or Path("runs") / spec.name

    from temper.cluster.launch import launch

    say(f"training {spec.name} into {folder}")

    def on_epoch(metrics: Any) -> None:
        epochs = spec.pretrain.epochs if metrics.get("pretrain") and spec.pretrain else spec.epochs
        say(epoch_line(metrics, epochs))

    state = launch(spec, folder, on_epoch=on_epoch, verbose=verbose)
    if evaluate:
        finish_record(evaluate_somewhere(folder), folder, as_json)
        return
    rows = [[name, f"{value:.4f}"] for name, value in state.best_metrics.items()]
    finish(
        {"run": str(folder), "best_epoch": state.best_epoch, "metrics": state.best_metrics},
        table_of(f"{spec.name}, best epoch {(state.best_epoch or 0) + 1}", ["metric", "value"], rows),
        as_json=as_json,
    )
    say(f"run: {folder}")


@app.command(epilog="Example: temper sweep jobs/recipes/digits.yaml search_spaces/joint.yaml --samples 24")
def sweep(
    recipe: Annotated[Path, typer.Argument(help="The recipe that is varied.")],
    space: Annotated[Path, typer.Argument(help="The search space's YAML file.")],
    overrides: Set = None,
    samples: Annotated[int | None, typer.Option(min=1, help="Trials of a random search.")] = None,
    out: Annotated[Path | None, typer.Option(help="The sweep folder. [default: runs/NAME-sweep]")] = None,
    as_json: Json = False,
    verbose: Verbose = False,
) -> None:
    """Search a space around a recipe, and rank the finalists."""
    from temper.cluster.search_space import load_space
    from temper.recipe import build_recipe
    from temper.spec import apply_overrides, parse_assignments, read_yaml

    document = apply_overrides(read_yaml(recipe), parse_assignments(overrides or []))
    spec = build_recipe(document, where=str(recipe))
    searched = load_space(space, {} if samples is None else {"samples": samples})
    folder = out or Path("runs") / f"{spec.name}-sweep"

    from temper.cluster.sweep import sweep as run_sweep
    from temper.leaderboard import build_leaderboard
    from temper.records import SweepFolder

    record = run_sweep(
        document,
        searched,
        folder,
        where=str(space),
        on_trial=trial_printer(),
        on_stage=say,
        verbose=verbose,
    )
    board = build_leaderboard([SweepFolder(folder).trials], SweepFolder(folder).leaderboard)
    page = SweepFolder(folder).leaderboard / "index.html"
    finish({**record.model_dump(), "page": str(page)}, board_table(board), as_json=as_json)
    say(f"sweep: {folder}\nleaderboard: {page}")


@app.command(epilog="Example: temper evaluate runs/medical")
def evaluate(
    run: Annotated[Path, typer.Argument(help="A run folder.")],
    overrides: Set = None,
    out: Annotated[Path | None, typer.Option(help="Where the record goes. [default: RUN]")] = None,
    as_json: Json = False,
    verbose: Verbose = False,
) -> None:
    """Attack a trained model and write its record, once."""
    from temper.spec import parse_assignments

    finish_record(
        evaluate_somewhere(run, parse_assignments(overrides or []), out, verbose), out or run, as_json
    )


@app.command(epilog="Example: temper leaderboard runs --out leaderboard")
def leaderboard(
    results: Annotated[list[Path], typer.Argument(help="Run folders, sweep folders, or record files.")],
    out: Annotated[Path, typer.Option(help="Where the pages go.")] = Path("leaderboard"),
    as_json: Json = False,
    verbose: Verbose = False,
) -> None:
    """Rank evaluated models on a page, from their records alone."""
    from temper.leaderboard import build_leaderboard

    board = build_leaderboard(results, out)
    for problem in board.skipped:
        say(f"left out {problem.path}: {problem.reason}")
    finish(
        {"page": str(out / "index.html"), **board.model_dump(mode="json")},
        board_table(board),
        as_json=as_json,
    )
    say(f"leaderboard: {out / 'index.html'}")


@app.command(epilog="Example: temper demo --out demo")
def demo(
    out: Annotated[Path, typer.Option(help="Where everything goes.")] = Path("demo"),
    as_json: Json = False,
    verbose: Verbose = False,
) -> None:
    """The whole job on embedded data, in about two minutes."""
    from temper.demo import run_demo

    result = run_demo(out, on_stage=say, on_trial=trial_printer(), verbose=verbose)
    summary = {**result.sweep.model_dump(), "page": str(result.page)}
    finish(summary, board_table(result.leaderboard), as_json=as_json)
    say(f"leaderboard: {result.page}")


@app.command(epilog="Example: temper doctor")
def doctor(as_json: Json = False, verbose: Verbose = False) -> None:
    """Check whether temper can work on this machine."""
    from temper.cli.doctor import examine

    checks = examine()
    rows = [[check.name, "ok" if check.passed else "PROBLEM", check.found] for check in checks]
    finish(
        {check.name: {"passed": check.passed, "found": check.found} for check in checks},
        table_of(f"temper {temper.__version__}", ["what", "state", "found"], rows),
        as_json=as_json,
    )
    if not all(check.passed for check in checks):
        raise typer.Exit(1)
