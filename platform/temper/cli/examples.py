"""The command that copies the recipes and search spaces that come with temper."""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

import temper
from temper.cli.options import Json, Verbose, app, here
from temper.cli.show import finish, say, table_of
from temper.errors import TemperError

PLACES = {"recipes": "jobs/recipes", "search_spaces": "search_spaces"}
"""Their folder in the package, and in the repository."""


@app.command(epilog="Example: temper examples .")
def examples(
    folder: Annotated[
        Path, typer.Argument(help="Where they go; files that are there already are left as they are.")
    ] = Path(),
    as_json: Json = False,
    verbose: Verbose = False,
) -> None:
    """Copy the recipes and search spaces of temper into FOLDER, for those who have no repository."""
    from temper.records import write_atomic

    found = dict(_found(here(folder)))
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


def _found(folder: Path) -> Iterator[tuple[Path, Path]]:
    """Where each goes, and where it is."""
    package = Path(temper.__file__).parent
    for name, place in PLACES.items():
        installed = package / "examples" / name
        origin = installed if installed.is_dir() else package.parents[1] / place
        yield from ((folder / place / file.name, file) for file in sorted(origin.glob("*.yaml")))
