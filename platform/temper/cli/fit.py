"""The command that goes from class folders to a model."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from temper.cli.fit_watch import watching_fit
from temper.cli.options import (
    BitDepth,
    FollowLinks,
    Group,
    GroupNear,
    Json,
    Labels,
    MaxBad,
    MaxPixels,
    Verbose,
    Window,
    app,
    depth_of,
    here,
)
from temper.cli.show import finish, say, table_of
from temper.defaults import MAX_BAD_FRAC
from temper.errors import UsageError
from temper.formats import percent

if TYPE_CHECKING:
    from temper.fitting import FitRequest, FitResult, Outcome
    from temper.records import Proportion

NAMES = {"probe": "linear probe", "plain": "plain", "hardened": "hardened"}
BESIDE_RESUME = {"resume", "as_json", "verbose"}
"""Parameters that a fit may be resumed with."""

Images = Annotated[
    Path | None, typer.Argument(help="Class folders: IMAGES/<class>/*, or a folder of shards.")
]
Out = Annotated[Path | None, typer.Option(help="Output folder. [default: runs/NAME-fit]")]
Eps = Annotated[
    str,
    typer.Option(help="How far an attacker may change each pixel, on a scale of 0 to 1; 2/255 is invisible."),
]
NormOfEps = Annotated[str, typer.Option(help="Norm of eps: linf (each pixel), l2 or l1 (all).")]
Minutes = Annotated[float, typer.Option(min=0.1, help="Time budget of the whole fit.")]
Size = Annotated[int | None, typer.Option(min=8, max=1024, help="Image size, in pixels.")]
Backbone = Annotated[str | None, typer.Option(help="Network; see `temper models`.")]
Weights = Annotated[str | None, typer.Option(help="Initial weights: a file, a run, or `random`.")]
SourceTask = Annotated[
    Path | None, typer.Option(help="Images of a source task, to pretrain on or to retain.")
]


@app.command(epilog="Example: temper fit photos --eps 2/255 --minutes 20")
def fit(
    context: typer.Context,
    images: Images = None,
    out: Out = None,
    eps: Eps = "2/255",
    norm: NormOfEps = "linf",
    minutes: Minutes = 20.0,
    size: Size = None,
    backbone: Backbone = None,
    weights: Weights = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of every random draw.")] = 0,
    source: SourceTask = None,
    bit_depth: BitDepth = None,
    window: Window = None,
    max_pixels: MaxPixels = None,
    max_bad: MaxBad = MAX_BAD_FRAC,
    follow_links: FollowLinks = False,
    labels: Labels = None,
    group: Group = None,
    group_near: GroupNear = False,
    resume: Annotated[Path | None, typer.Option(help="Resume the fit in this folder.")] = None,
    as_json: Json = False,
    verbose: Verbose = False,
) -> None:
    """Go from class folders to a hardened, evaluated model.

    Chooses network, image size, epochs and hardening from the images and from measurements on this machine,
    shows the plan, trains, evaluates and explains. Run the same command again to resume.
    """
    _check_resumed(context, resume)
    request = None
    if images is not None:
        request = _request(
            **_chosen(context, "eps", "norm", "minutes", "size", "backbone", "weights", "seed"),
            images=str(here(images)),
            source=None if source is None else str(here(source)),
            reading={
                **_chosen(context, "max_pixels", "max_bad", "follow_links", "group"),
                "depth": depth_of(bit_depth, window),
                "labels": None if labels is None else str(here(labels)),
                "group_near_duplicates": group_near,
            },
        )
    _show(_run(request, resume or out, verbose), as_json)


def _check_resumed(context: typer.Context, resume: Path | None) -> None:
    """What a fit is asked for is in its folder; nothing else counts when it is resumed.

    Raises:
        UsageError: something else is given, or neither images nor a folder.
    """
    if resume is None and context.params["images"] is None:
        raise UsageError("temper fit needs a folder of images, or --resume OUT")
    given = [
        parameter.opts[0]
        for parameter in context.command.params
        if parameter.name not in BESIDE_RESUME
        and (source := context.get_parameter_source(parameter.name or "")) is not None
        and source.name == "COMMANDLINE"
    ]
    if resume is not None and given:
        raise UsageError(
            "--resume takes the fit's folder alone, and everything else is in its fit.json: leave out "
            f"{', '.join(given)}"
        )


def _chosen(context: typer.Context, *names: str) -> dict[str, Any]:
    """Parameters that a request takes as they are."""
    return {name: context.params[name] for name in names}


def _run(request: "FitRequest | None", folder: Path | None, verbose: bool) -> "FitResult":
    """Begin ``request`` in ``folder``, or resume what is there."""
    from temper.fitting import resume_fit, run_fit

    with watching_fit() as watch:
        if request is None:
            assert folder is not None
            return resume_fit(here(folder), watch=watch, verbose=verbose)
        place = folder or Path("runs") / f"{Path(request.images).name}-fit"
        return run_fit(request, here(place), watch=watch, verbose=verbose)


def _request(**document: Any) -> "FitRequest":
    from temper.fitting import FitRequest
    from temper.spec import validate

    return validate(FitRequest, document, "temper fit")


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
