"""The commands that use a trained model: predict, calibrate, export."""

import csv
import io
import os
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from temper.addresses import is_remote
from temper.cli.options import Json, Verbose, app, here
from temper.cli.show import finish, percent, progress_bar, say, table_of
from temper.credentials import on_a_line

if TYPE_CHECKING:
    from rich.table import Table

    from temper.deployment import Prediction, Predictions

COLUMNS = (
    "image", "label", "probability", "is_rejected", "is_out_of_distribution", "is_suspicious", "energy",
    "squeezing", "error",
)  # fmt: skip
"""Of a CSV file; the probability of each class follows, as ``probability of CLASS``."""

Threshold = Annotated[
    float | None,
    typer.Option(
        min=0, max=1, help="With two classes: predict the second from this probability up. [default: 0.5]"
    ),
]


@app.command(
    epilog="Example: temper predict runs/medical new-images\n\n"
    "Example: temper predict exported/medical a.png b.png --csv answers.csv"
)
def predict(
    model: Annotated[Path, typer.Argument(help="A run folder, its record.json, or an exported model.")],
    images: Annotated[list[Path], typer.Argument(help="Image files, or folders of them.")],
    csv_file: Annotated[
        Path | None, typer.Option("--csv", metavar="FILE", help="Write one row per image to FILE.")
    ] = None,
    min_confidence: Annotated[
        float | None,
        typer.Option(min=0, max=1, help="Reject predictions below this probability. [default: calibrated]"),
    ] = None,
    threshold: Threshold = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Images per batch.")] = 64,
    max_pixels: Annotated[int | None, typer.Option(min=1, help="Largest width x height of a file.")] = None,
    as_json: Json = False,
    verbose: Verbose = False,
) -> None:
    """Classify images, with probabilities and trust flags. Exit code 1 if any image could not be read."""
    from temper.deployment import predict as ask
    from temper.deployment.predict import as_document

    target = None if csv_file is None else here(csv_file)
    with progress_bar("images") as update:
        found = ask(
            model,
            images,
            min_confidence=min_confidence,
            threshold=threshold,
            batch_size=batch_size,
            max_pixels=max_pixels,
            on_progress=lambda done, total: update(done, total, ""),
        )
    if target is not None:
        from temper.records import write_atomic

        write_atomic(target, _csv(found))
    finish(as_document(found), _table(found), as_json=as_json)
    _tell(found)
    if target is not None:
        say(f"CSV: {target}")
    if found.bad:
        raise typer.Exit(1)


def _tell(found: "Predictions") -> None:
    if not found.is_calibrated:
        say("not calibrated: probabilities are raw and nothing is flagged; run `temper calibrate RUN`")
    for what, images in (("not read", found.bad), ("read in part", found.partly)):
        for image in images:
            say(f"{what}: {on_a_line(image.path)}: {on_a_line(image.reason)}")
    rejected = f", {found.num_rejected} of them rejected" if found.min_confidence is not None else ""
    unread = f"; {len(found.bad)} could not be read" if found.bad else ""
    folder = _shared_folder(found)
    where = f" in {on_a_line(folder)}" if folder else ""
    say(f"{len(found.images)} images{where}{rejected}{unread}")
    from temper.data.walk import NOTE_SUFFIXES

    if any(Path(image.path).suffix.lower() in NOTE_SUFFIXES for image in found.bad):
        say("tables and lists of names are not read: give image files, or folders of them")


def _table(found: "Predictions") -> "Table":
    folder = _shared_folder(found)
    rows = [
        [_within(one.image, folder), one.label, percent(one.probability), ", ".join(_words(one))]
        for one in found.images
    ]
    rows += [[_within(bad.path, folder), "NOT READ", "", on_a_line(bad.reason)] for bad in found.bad]
    table = table_of(found.model, ["image", "label", "probability", "flags"], rows)
    table.columns[0].no_wrap = False
    for column in (table.columns[1], table.columns[3]):
        column.justify = "left"
    return table


def _shared_folder(found: "Predictions") -> str:
    """The folder that all images lie in, said once so that a row has room for what tells them apart."""
    paths = [one.image for one in found.images] + [one.path for one in found.bad]
    if len(paths) < 2 or any(is_remote(path) for path in paths):
        return ""
    with suppress(ValueError):  # some absolute, some not
        return os.path.commonpath([str(Path(path).parent) for path in paths])
    return ""


def _within(path: str, folder: str) -> str:
    return on_a_line(os.path.relpath(path, folder) if folder else path)


def _words(one: "Prediction") -> list[str]:
    flags = {
        "rejected": one.is_rejected,
        "out of distribution": one.is_out_of_distribution,
        "suspicious": one.is_suspicious,
    }
    return [word for word, is_set in flags.items() if is_set]


def _csv(found: "Predictions") -> bytes:
    from temper.formats import spreadsheet_cell

    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow([*COLUMNS, *(f"probability of {name}" for name in found.classes)])
    for one in found.images:
        row = [on_a_line(one.image), *(getattr(one, name) for name in COLUMNS[1:-1])]
        shares = [one.probabilities[name] for name in found.classes]
        writer.writerow([*map(spreadsheet_cell, row), "", *shares])
    for bad in found.bad:
        gaps, none = [""] * (len(COLUMNS) - 2), [""] * len(found.classes)
        cells = spreadsheet_cell(on_a_line(bad.path)), spreadsheet_cell(on_a_line(bad.reason))
        writer.writerow([cells[0], *gaps, cells[1], *none])
    return buffer.getvalue().encode("utf-8", "backslashreplace")


@app.command(epilog="Example: temper calibrate runs/medical")
def calibrate(
    run: Annotated[Path, typer.Argument(help="A finished run whose images still exist.")],
    coverage: Annotated[
        float, typer.Option(help="Fraction of validation images that pass each threshold.")
    ] = 0.95,
    as_json: Json = False,
    verbose: Verbose = False,
) -> None:
    """Fit a run's temperature and thresholds. Uses validation images; serves `predict` and `export`."""
    from temper.deployment import calibrate as fit

    calibration = fit(run, coverage=coverage)
    path = run / "calibration.json"
    rows: list[list[object]] = [
        ["validation images", calibration.num_images],
        ["temperature", f"{calibration.temperature:.3g}"],
        ["rejected below the probability", percent(calibration.min_confidence)],
        ["out of distribution above the energy", f"{calibration.max_energy:.3g}"],
        ["suspicious above the squeezing", f"{calibration.max_squeezing:.3g}"],
    ]
    finish(
        {"calibration": str(path), **calibration.model_dump()},
        table_of(run.name, ["measure", "value"], rows),
        as_json=as_json,
    )
    say(f"calibration: {path}")


@app.command(epilog="Example: temper export runs/medical --out exported/medical")
def export(
    run: Annotated[Path, typer.Argument(help="A finished run, or its record.json.")],
    out: Annotated[Path, typer.Option(help="The folder to create.")],
    onnx: Annotated[
        bool | None,
        typer.Option("--onnx/--no-onnx", help="Also write ONNX. [default: if its packages are installed]"),
    ] = None,
    as_json: Json = False,
    verbose: Verbose = False,
) -> None:
    """Export a run's model for other programs. Includes labels, preprocessing and record."""
    from temper.deployment import export as write

    exported = write(run, out, onnx=onnx)
    record = exported.record
    rows = [
        [
            name,
            file.sha256[:16],
            f"{record.largest_change[name]:.1e}" if name in record.largest_change else "",
        ]
        for name, file in record.files.items()
    ]
    finish(
        {"export": str(out), **record.model_dump(mode="json")},
        table_of(record.name, ["file", "SHA-256", "largest logit change"], rows),
        as_json=as_json,
    )
    if exported.left_out is not None:
        say(f"no model.onnx: {exported.left_out}; pip install 'temper[onnx]'")
    if record.calibration is None:
        say(
            "not calibrated: run `temper calibrate RUN` before `temper export` to include "
            "temperature and thresholds"
        )
    say(f"export: {out}")
