"""The command that copies what comes with temper beside its code."""

from pathlib import Path
from typing import Annotated

import typer

from temper.cli.options import Json, Verbose, app, here
from temper.cli.show import finish, say, table_of
from temper.errors import TemperError


@app.command(epilog="Example: temper examples .")
def examples(
    folder: Annotated[
        Path, typer.Argument(help="Where they go; files that are there already are left as they are.")
    ] = Path(),
    as_json: Json = False,
    verbose: Verbose = False,
) -> None:
    """Copy recipes, search spaces and what jobs need into FOLDER, for those who have no repository."""
    from temper.records import write_atomic
    from temper.shipped import examples as shipped

    found = {here(folder) / place: file for place, file in shipped()}
    if not found:
        raise TemperError("this installation of temper lacks its examples; install it again")
    new = [path for path in found if not path.exists()]
    for path in new:
        write_atomic(path, found[path].read_text(encoding="utf-8"))
    rows = [[str(path), "written" if path in new else "there already"] for path in found]
    finish(
        {"written": [str(path) for path in new], "kept": [str(path) for path in found if path not in new]},
        table_of("examples", ["file", ""], rows),
        as_json=as_json,
    )
    say(f"{len(new)} written, {len(found) - len(new)} were there already")
