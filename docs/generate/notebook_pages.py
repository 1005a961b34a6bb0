"""Notebooks as pages: their text and code; what they print is made by running them."""

import json
from pathlib import Path


def notebook_page(path: Path) -> str:
    """Markdown of a notebook's cells, with a link to the file."""
    notebook = json.loads(path.read_text(encoding="utf-8"))
    lines = []
    for cell in notebook["cells"]:
        text = "".join(cell["source"])
        lines += [f"```python\n{text}\n```" if cell["cell_type"] == "code" else text, ""]
    return "\n".join([*lines, f"[Download the notebook]({path.name})", ""])
