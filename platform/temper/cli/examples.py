"""The command that copies what comes with temper beside its code."""

from pathlib import Path
from typing import Annotated

import typer

from temper.cli.options import Json, Verbose, app, here
from temper.cli.show import finish, say, table_of
from temper.errors import TemperError


@app.command(epilog="Example: temper examples .")
def examples(
    folder: Annotated[Path, typer.Argument(help="Destination; existing files are kept.")] = Path(),
    as_json: Json = False,
    verbose: Verbose = False,
) -> None:
    """Copy example recipes, search spaces and job files to FOLDER. No repository is needed."""
    from temper.records import write_atomic
    from temper.shipped import examples as shipped

    found = {here(folder) / place: file for place, file in shipped()}
    if not found:
        raise TemperError("this installation of temper lacks its examples; reinstall it")
    new = [path for path in found if not path.exists()]
    for path in new:
        write_atomic(path, found[path].read_text(encoding="utf-8"))
    rows = [[str(path), "written" if path in new else "kept"] for path in found]
    finish(
        {"written": [str(path) for path in new], "kept": [str(path) for path in found if path not in new]},
        table_of("examples", ["file", ""], rows),
        as_json=as_json,
    )
    say(f"{len(new)} written, {len(found) - len(new)} kept")
