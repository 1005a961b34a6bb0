"""The command that evaluates: a run, or a model from anywhere."""

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from temper.addresses import is_remote, named
from temper.cli.options import AllowLeakage, Json, Set, Verbose, app, with_leakage
from temper.cli.results import advise_on_channels, evaluate_somewhere, finish_record, show_attacks
from temper.errors import UsageError

if TYPE_CHECKING:
    from temper.records import EvaluationRecord

FurtherTests = Annotated[
    list[str] | None,
    typer.Option("--test", metavar="NAME=SHARDS", help="A further test set of the same classes; repeatable."),
]
NormOption = Annotated[
    str | None,
    typer.Option(help="Norm of the threat model: linf, l2, l1, l0, semantic or patch. [default: linf]"),
]


@app.command(
    epilog="Example: temper evaluate runs/medical\n\n"
    "Example: temper evaluate zoo.py:build --data shards/signs --size 32 --eps 8/255 --out runs/zoo"
)
def evaluate(
    model: Annotated[
        str,
        typer.Argument(metavar="RUN|MODULE:FUNCTION|WEIGHTS", help="A run, a function or a weights file."),
    ],
    overrides: Set = None,
    out: Annotated[Path | None, typer.Option(help="Output folder of the record. [default: RUN]")] = None,
    data: Annotated[Path | None, typer.Option(help="Shards, for a model that is not a run.")] = None,
    size: Annotated[int | None, typer.Option(help="Its input height and width, in pixels.")] = None,
    eps: Annotated[str | None, typer.Option(help="Eps of the threat model, such as 8/255.")] = None,
    norm: NormOption = None,
    backbone: Annotated[str | None, typer.Option(help="Network of a weights file.")] = None,
    test: FurtherTests = None,
    allow_leakage: AllowLeakage = False,
    as_json: Json = False,
    verbose: Verbose = False,
) -> None:
    """Attack a trained model and write its record, once. Run it again to resume an interrupted evaluation."""
    from temper.spec import parse_assignments

    settings = parse_assignments(overrides or []) | with_leakage(allow_leakage)
    tests = _further_tests(test or [])
    run = _run_of(model)
    if run is not None and backbone is None and data is None:
        if is_remote(run) or (run / "recipe.yaml").exists():  # else it is told below what is missing
            _refuse_of_models_elsewhere(run, size, eps, norm)
        settings |= {f"data.tests.{name}": place for name, place in tests.items()}
        _finish(evaluate_somewhere(run, settings, out, verbose), out or run, run, as_json)
        return
    _check_external(model, backbone, {"--data": data, "--size": size, "--eps": eps, "--out": out})
    assert out is not None
    document = {
        "name": out.name,
        "model": model,
        "backbone": backbone,
        "shards": data and named(data),
        "image_size": size,
        "threat": {"norm": norm or "linf", "eps": eps},
        "tests": tests,
    }
    _finish(_evaluate_external(document, settings, out), out, out, as_json)


def _finish(record: "EvaluationRecord", folder: Path, model: Path, as_json: bool) -> None:
    """Show the record in ``folder``, and what its images and its threat model call for."""
    from temper.storage import from_run

    finish_record(record, folder, as_json)
    recipe = record.recipe  # of a run, or the settings of an evaluation
    beside = Path(recipe["shards"]) if "shards" in recipe else from_run(Path(recipe["data"]["target"]), model)
    advise_on_channels(record.threat, beside)


def _further_tests(given: list[str]) -> dict[str, str]:
    """Name -> shards, from NAME=SHARDS.

    Raises:
        UsageError: not of that form, or a name twice.
    """
    from temper.data.settings import TEST_NAME

    found: dict[str, str] = {}
    for one in given:
        name, sign, place = one.partition("=")
        if not (re.fullmatch(TEST_NAME, name) and sign and place):
            raise UsageError(
                f"--test {one}: expected NAME=SHARDS, such as site_b=shards/site_b; a name has up to 50 "
                "letters, digits, '_' and '-'"
            )
        if name in found:
            raise UsageError(f"--test: '{name}' is given twice")
        found[name] = place
    return found


def _refuse_of_models_elsewhere(run: Path, size: int | None, eps: str | None, norm: str | None) -> None:
    """A run is evaluated as its recipe says, and what else it could be goes through ``--set``.

    Raises:
        UsageError: an option that would have no effect.
    """
    for option, value, instead in (
        ("--eps", eps, f"--set threat.eps={eps}"),
        ("--norm", norm, f"--set threat.norm={norm}"),
        ("--size", size, "images have the size that it was trained on"),
    ):
        if value is not None:
            raise UsageError(f"{option} is for models that are not runs; for {named(run)}: {instead}")


def _run_of(model: str) -> Path | None:
    """The run folder that is meant by it, by its ``checkpoint`` folder, or by the weights in there."""
    path = Path(model)
    if is_remote(model) and path.suffix in (".pt", ".pth", ".bin"):
        return None
    if path.name == "model.safetensors":
        path = path.parent
    if path.name in ("checkpoint", "last"):
        path = path.parent
    return path if path.is_dir() or ":" not in model or is_remote(model) else None


def _check_external(model: str, backbone: str | None, required: dict[str, Any]) -> None:
    """A model that is not a run has to be named and described in full.

    Raises:
        UsageError: it is not.
    """
    missing = [option for option, value in required.items() if not value]
    if missing and (":" not in model or is_remote(model)) and backbone is None:
        raise UsageError(f"{model}: not a run folder, a module:function, or a weights file with --backbone")
    if missing:
        raise UsageError(f"{model}: a model that is not a run needs {', '.join(missing)}")


def _evaluate_external(document: dict[str, Any], settings: dict[str, Any], out: Path) -> Any:
    from temper.cluster.evaluate import evaluate_external
    from temper.run.external_model import ExternalModelSpec
    from temper.spec import apply_overrides, validate

    spec = validate(ExternalModelSpec, apply_overrides(document, settings), "evaluate")
    with show_attacks(spec.name) as on_progress:
        return evaluate_external(spec, out, on_progress=on_progress)
