"""The command that prints JSON schemas."""

import json
from pathlib import Path
from typing import Annotated

import typer

from temper.cli.options import SchemaName, app, here


@app.command(epilog="Example: temper schema recipe --out recipe.schema.json")
def schema(
    of: Annotated[SchemaName, typer.Argument(help="What to describe.")],
    out: Annotated[Path | None, typer.Option(help="A file to write. [default: stdout]")] = None,
) -> None:
    """Print a JSON schema: recipe, space, suite or record. Editors read it."""
    from temper.cli.schemas import build_schema
    from temper.records import write_atomic

    text = json.dumps(build_schema(of), indent=2, ensure_ascii=False) + "\n"
    if out is None:
        typer.echo(text, nl=False)
    else:
        write_atomic(here(out), text)
