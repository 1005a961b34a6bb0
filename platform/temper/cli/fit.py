"""The command that goes from class folders to a model."""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from temper.cli.options import Json, Verbose, app, here
from temper.cli.show import console, finish, progress_bar, say, table_of
from temper.errors import UsageError
from temper.formats import percent

if TYPE_CHECKING:
    from temper.fitting import FitPlan, FitRequest, FitResult, FitWatch, Look, Outcome
    from temper.records import LedgerRow, Proportion

TELL_EVERY_S = 30.0
NAMES = {"probe": "linear probe", "plain": "plain", "hardened": "hardened"}


@app.command(epilog="Example: temper fit photos --eps 2/255 --minutes 20")
def fit(
    images: Annotated[
        Path | None, typer.Argument(help="Class folders: IMAGES/<class>/*, or a folder of shards.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Output folder. [default: runs/NAME-fit]")] = None,
    eps: Annotated[
        str,
        typer.Option(
            help="How far an attacker may change each pixel, on a scale of 0 to 1; 2/255 is invisible."
        ),
    ] = "2/255",
    norm: Annotated[str, typer.Option(help="Norm of eps: linf (each pixel), l2 or l1 (all).")] = "linf",
    minutes: Annotated[float, typer.Option(min=0.1, help="Time budget of the whole fit.")] = 20.0,
    size: Annotated[int | None, typer.Option(min=8, max=1024, help="Image size, in pixels.")] = None,
    backbone: Annotated[str | None, typer.Option(help="Network; see `temper models`.")] = None,
    weights: Annotated[str | None, typer.Option(help="Initial weights: a file, a run, or `random`.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of every random draw.")] = 0,
    source: Annotated[
        Path | None, typer.Option(help="Images of a source task, to pretrain on or to retain.")
    ] = None,
    resume: Annotated[Path | None, typer.Option(help="Resume the fit in this folder.")] = None,
    as_json: Json = False,
    verbose: Verbose = False,
) -> None:
    """Go from class folders to a hardened, evaluated model.

    Chooses network, image size, epochs and hardening from the images and from measurements on this machine,
    shows the plan, trains, evaluates and explains. Run the same command again to resume.
    """
    _check_place(images, out, resume)
    request = None
    if images is not None:
        request = _request(
            images=str(here(images)),
            eps=eps,
            norm=norm,
            minutes=minutes,
            size=size,
            backbone=backbone,
            weights=weights,
            source=None if source is None else str(here(source)),
            seed=seed,
        )
    _show(_run(request, resume or out, verbose), as_json)


def _check_place(images: Path | None, out: Path | None, resume: Path | None) -> None:
    if resume is not None and (images is not None or out is not None):
        raise UsageError("--resume takes the fit's folder alone; everything else is in its fit.json")
    if resume is None and images is None:
        raise UsageError("temper fit needs a folder of images, or --resume OUT")


def _run(request: "FitRequest | None", folder: Path | None, verbose: bool) -> "FitResult":
    """Begin ``request`` in ``folder``, or resume what is there."""
    from temper.fitting import resume_fit, run_fit

    with _watching() as watch:
        if request is None:
            assert folder is not None
            return resume_fit(here(folder), watch=watch, verbose=verbose)
        place = folder or Path("runs") / f"{Path(request.images).name}-fit"
        return run_fit(request, here(place), watch=watch, verbose=verbose)


def _request(**document: Any) -> "FitRequest":
    from temper.fitting import FitRequest
    from temper.spec import validate

    return validate(FitRequest, document, "temper fit")


@contextmanager
def _watching() -> "Iterator[FitWatch]":
    """Stages and trials as a sweep shows them, the plan before it begins, and what time is left."""
    from temper.cli.watch import watching
    from temper.fitting import FitWatch

    with watching() as shown:
        clock = _Clock()

        def on_result(trial: str, metrics: Mapping[str, Any]) -> None:
            shown.on_result(trial, metrics)
            clock.result(trial, metrics)

        def on_trial(row: "LedgerRow", total: int) -> None:
            clock.ended(row.trial)
            shown.on_trial(row, total)

        def on_stage(stage: str) -> None:
            if stage.startswith("running"):
                clock.start()
            shown.on_stage(stage)

        def on_plan(look: "Look", plan: "FitPlan") -> None:
            clock.plan(plan)
            console.print(_plan_table(look, plan))
            if plan.is_short:
                steps = plan.hardened_epochs * plan.num_batches
                say(
                    f"time is short: {steps} steps under attack may not make the model robust; "
                    f"--minutes {plan.enough_minutes} would be enough"
                )

        watch = replace(shown, on_stage=on_stage, on_result=on_result, on_trial=on_trial)
        with progress_bar("images") as update:
            yield FitWatch(watch, lambda done, total: update(done, total, ""), on_plan)


class _Clock:
    """Reports now and then how far the runs are, and when all may be done."""

    def __init__(self) -> None:
        self._remaining: Any = None
        self._started = self._told = time.monotonic()

    def plan(self, plan: "FitPlan") -> None:
        from temper.fitting.progress import Remaining

        self._remaining = Remaining(plan)

    def start(self) -> None:
        self._started = self._told = time.monotonic()

    def result(self, trial: str, metrics: Mapping[str, Any]) -> None:
        if self._remaining is None:
            return
        self._remaining.result(trial, float(metrics.get("epoch", 0)))
        now = time.monotonic()
        if now - self._told >= TELL_EVERY_S:
            self._told = now
            say(f"training {percent(self._remaining.share)} % done, {self._left(now)} left")

    def ended(self, trial: str) -> None:
        if self._remaining is not None:
            self._remaining.ended(trial)

    def _left(self, now: float) -> str:
        from temper.cli.watch import duration

        return f"about {duration(self._remaining.seconds(now - self._started))}"


def _plan_table(look: "Look", plan: "FitPlan") -> Any:
    """What will be done, before it is."""
    start, minutes = plan.start, "{:.1f}".format
    weights = "random weights" if start.weights is None else f"{start.weights} weights"
    sampling = "every class equally often" if look.is_imbalanced else "as they are"
    side = f"{plan.num_slots} at a time" if plan.num_slots > 1 else "one at a time"
    tested = "all" if plan.test_images is None else str(plan.test_images)
    rows = [
        ["images", f"{look.num_train} training, {look.num_val} validation, {look.num_test} test", ""],
        ["classes", f"{len(look.classes)}, {sampling}", ""],
        ["start", f"{start.backbone}, {weights}, {start.image_size} px", ""],
        ["plain training", f"{plan.plain_epochs} epochs", minutes(plan.plain_s / 60)],
        [
            f"hardened training x {plan.num_hardened}",
            f"{plan.hardened_epochs} epochs each, {side}",
            minutes(plan.hardened_s / 60),
        ],
        ["evaluation", f"{tested} test images, quick suite", minutes(plan.evaluation_s / 60)],
        ["total", "", minutes(plan.total_s / 60)],
    ]
    return table_of(f"{look.name}: plan", ["what", "how", "minutes"], rows)


def _show(result: "FitResult", as_json: bool) -> None:
    outcome = result.outcome
    rows = [
        [
            NAMES[model.kind],
            percent(model.record.clean_acc.value),
            percent(model.record.balanced_acc),
            _interval(model.record.robust_acc),
            percent(model.record.robust_balanced_acc),
        ]
        for model in outcome.models
    ]
    threat = outcome.models[-1].record.threat.label if outcome.models else ""
    columns = ["model", "clean %", "balanced", "robust %", "balanced"]
    finish(
        _summary(result, outcome), table_of(f"{result.look.name}, {threat}", columns, rows), as_json=as_json
    )
    for advice in outcome.advice:
        say(f"advice: {advice.text}")
        if (command := outcome.command_of(advice)) is not None:
            say(f"  {command}")
    say("next:")
    for step in outcome.next_steps:
        say(f"  {step}")
    say("the same by hand:")
    for line in outcome.commands:
        say(f"  {line}")
    say(f"report: {result.report}\nleaderboard: {result.page}")


def _interval(value: "Proportion") -> str:
    return f"{percent(value.value)} ({percent(value.low)} to {percent(value.high)})"


def _summary(result: "FitResult", outcome: "Outcome") -> dict[str, Any]:
    return {
        "out": str(result.path),
        "request": result.request.model_dump(mode="json"),
        "images": result.look.model_dump(mode="json"),
        "plan": result.plan.model_dump(mode="json"),
        "models": {model.kind: {"run": str(model.run), **_figures(model.record)} for model in outcome.models},
        "advice": [advice.model_dump(mode="json") for advice in outcome.advice],
        "next": outcome.next_steps,
        "commands": outcome.commands,
        "page": str(result.page),
        "report": str(result.report),
    }


def _figures(record: Any) -> dict[str, Any]:
    names = {"clean_acc", "balanced_acc", "robust_acc", "robust_balanced_acc", "status"}
    return dict(record.model_dump(mode="json", include=names))
