"""Links from a page to the files that it rests on."""

import os
from pathlib import Path
from urllib.parse import quote


def relative_link(target: Path, out: Path) -> str | None:
    """A link from the folder ``out`` to ``target`` as a quoted relative URL; ``None`` where it is missing."""
    if not target.exists():
        return None
    return quote(Path(os.path.relpath(target.resolve(), out.resolve())).as_posix())
