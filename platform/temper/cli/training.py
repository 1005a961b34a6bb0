"""The commands that train: one recipe, its plan, and its merged adapter."""

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from temper.cli.options import AllowLeakage, GoOn, Json, Set, Verbose, app, with_leakage
from temper.cli.plans import cost_line, plan_rows, plan_summary, rate_line
from temper.cli.results import advise_on_channels, best_of, finish_record, probe_line, show_attacks
from temper.cli.show import epoch_line, finish, say, table_of

if TYPE_CHECKING:
    from temper.api.runs import TrainedRun
    from temper.recipe import Recipe
    from temper.training import TrainState


@app.command(epilog="Example: temper train jobs/recipes/medical.yaml --set objective.alpha=0.1")
def train(
    recipe: Annotated[Path, typer.Argument(help="The recipe's YAML file.")],
    overrides: Set = None,
    out: Annotated[Path | None, typer.Option(help="Run folder. [default: runs/NAME]")] = None,
    evaluate: Annotated[bool, typer.Option(help="Evaluate the best epoch and write a record.")] = True,
    probe: Annotated[
        bool, typer.Option(help="Also evaluate a linear probe on the start, as a baseline.")
    ] = True,
    resume: Annotated[
        bool, typer.Option("--resume", help="Resume if unfinished; succeed at once if already done.")
    ] = False,
    go_on: GoOn = False,
    allow_leakage: AllowLeakage = False,
    as_json: Json = False,
    verbose: Verbose = False,
) -> None:
    """Train a recipe and evaluate the result. Run the same command again to resume an interrupted run."""
    from temper.recipe import load_recipe
    from temper.spec import parse_assignments

    spec = load_recipe(recipe, parse_assignments(overrides or []) | with_leakage(allow_leakage))
    folder = out or Path("runs") / spec.name

    from temper.api.runs import train as train_recipe

    say(f"training {spec.name} into {folder}")
    with _Progress(spec, folder, evaluate) as progress:
        trained = train_recipe(
            spec,
            folder,
            evaluate=evaluate,
            probe=probe,
            resume=resume or go_on,
            on_epoch=progress.on_epoch,
            on_trained=progress.on_trained,
            on_progress=progress.on_attack,
            verbose=verbose,
        )
    _finish(trained, spec.name, as_json)


class _Progress(ExitStack):
    """Shows how far a run is: a line for each epoch, then a bar of the attacks if it is evaluated."""

    def __init__(self, recipe: "Recipe", folder: Path, evaluate: bool) -> None:
        super().__init__()
        self.recipe, self.folder, self.evaluate = recipe, folder, evaluate

    def on_epoch(self, metrics: Mapping[str, float]) -> None:
        say(epoch_line(metrics, int(metrics.get("num_epochs", self.recipe.epochs))))

    def on_trained(self, state: "TrainState") -> None:
        if state.rate is not None:
            say(rate_line(state.rate))
        if state.stopped is not None:
            say(f"stopped early: {state.stopped}")
        if state.best_is_probe and not self.recipe.is_probe:
            say("no epoch beats the linear probe on the start: the probe is kept")
        if self.evaluate:
            self._show = self.enter_context(show_attacks(str(self.folder)))

    def on_attack(self, member: str, done: int, total: int, robust_acc: float) -> None:
        self._show(member, done, total, robust_acc)


def _finish(trained: "TrainedRun", name: str, as_json: bool) -> None:
    """Show the record, or else what validation says."""
    if trained.record is not None:
        finish_record(trained.record, trained.path, as_json)
        if trained.probe is not None:
            say(probe_line(trained.probe, trained.path / "probe/record.json"))
        return
    state = trained.state
    rows = [[name, f"{value:.4f}"] for name, value in state.best_metrics.items()]
    finish(
        {
            "run": str(trained.path),
            "best_epoch": state.best_epoch,
            "best_is_probe": state.best_is_probe,
            "metrics": state.best_metrics,
        },
        table_of(f"{name}, {best_of(state)}", ["metric", "value"], rows),
        as_json=as_json,
    )
    say(f"run: {trained.path}")


@app.command(epilog="Example: temper plan jobs/recipes/medical.yaml --set schedule.kind=gradual")
def plan(
    recipe: Annotated[Path, typer.Argument(help="The recipe's YAML file.")],
    overrides: Set = None,
    as_json: Json = False,
    verbose: Verbose = False,
) -> None:
    """Show the phases of a recipe. Lists epochs, trainable parameters and learning rate of each group."""
    from temper.recipe import load_recipe
    from temper.spec import parse_assignments

    spec = load_recipe(recipe, parse_assignments(overrides or []))

    from temper.cluster.launch import plan_run

    planned, estimate = plan_run(spec)
    rows = [row for one in planned for row in plan_rows(one, spec.optim.lr)]
    title = f"{spec.name}: {spec.schedule.label}, {spec.epochs} epochs"
    columns = ["phase", "epochs", "group", "parameters", "learning rate", "BatchNorm", "images"]
    summary = {
        "recipe": str(recipe),
        "phases": [plan_summary(one, spec.optim.lr) for one in planned],
        "estimate": estimate.model_dump(),
    }
    finish(summary, table_of(title, columns, rows), as_json=as_json)
    say(cost_line(estimate))
    advise_on_channels(spec.threat, spec.data.target)


@app.command(epilog="Example: temper merge runs/lora --out runs/merged")
def merge(
    run: Annotated[Path, typer.Argument(help="A finished run with an adapter.")],
    out: Annotated[Path, typer.Option(help="The run folder to create.")],
    as_json: Json = False,
    verbose: Verbose = False,
) -> None:
    """Merge a run's adapter into its backbone. The plain model predicts the same."""
    from temper.run.merge import merge_run

    merged = merge_run(run, out)
    rows = [
        ["adapter", merged.adapter],
        ["parameters before", f"{merged.num_params_before:,}"],
        ["parameters after", f"{merged.num_params:,}"],
        ["largest logit change", f"{merged.largest_change:.1e}"],
    ]
    finish(
        {"run": str(out), **asdict(merged)}, table_of(out.name, ["measure", "value"], rows), as_json=as_json
    )
    say(f"run: {out}")
