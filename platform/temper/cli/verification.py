"""The command that checks a record against what it rests on."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from temper.cli.options import Json, Maker, Record, Verbose, app
from temper.cli.show import finish, say, table_of
from temper.errors import StorageError, UsageError

if TYPE_CHECKING:
    from rich.table import Table

    from temper.verification import VerificationRecord


@app.command(epilog="Example: temper verify runs/medical")
def verify(
    record: Record,
    shallow: Annotated[
        bool, typer.Option("--shallow", help="Check files and numbers only; run no model.")
    ] = False,
    sample: Annotated[
        int | None, typer.Option(min=1, help="Number of images to attack again. [default: 64]")
    ] = None,
    model: Maker = None,
    as_json: Json = False,
    verbose: Verbose = False,
) -> None:
    """Verify a record: files, numbers, model and new attacks; write verdict.json beside it.

    Exit code 1 if any check fails.
    """
    found = _verify(record, shallow, sample, model)
    _keep(record, found)
    finish({"passed": found.passed, **found.model_dump(mode="json")}, _table(found), as_json=as_json)
    for reason in found.not_checked:
        say(f"not checked: {reason}")
    if not found.passed:
        say(f"failed: {', '.join(check.name for check in found.failed)}")
        raise typer.Exit(1)


def _keep(path: Path, found: "VerificationRecord") -> None:
    """Leave the verdict beside the record; a folder that cannot be written changes no verdict."""
    from temper.verification import leave_verdict

    try:
        if not leave_verdict(path, found):
            say("verdict.json keeps the deep verdict of this record")
    except StorageError as problem:
        say(f"no verdict beside the record: {problem}")


def _verify(path: Path, shallow: bool, sample: int | None, model: str | None) -> "VerificationRecord":
    if shallow:
        if sample is not None or model is not None:
            raise UsageError("--shallow runs no model: omit --sample and --model")
        from temper.verification import verify_shallow

        return verify_shallow(path)
    from temper.run.verify import verify_record

    return verify_record(path, num_sampled=sample or 64, model=model, on_stage=say)


def _table(found: "VerificationRecord") -> "Table":
    rows = [[check.name, "ok" if check.passed else "FAILED", check.detail] for check in found.checks]
    table = table_of(f"{found.name}, {found.record}", ["check", "state", "found"], rows)
    table.columns[2].justify = "left"
    return table
