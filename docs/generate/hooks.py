"""What MkDocs does beside turning markdown into pages: pages from the code, and checks of the site."""

import json
import re
from pathlib import Path
from typing import Any

from api_pages import api_pages
from cli_pages import cli_page
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from notebook_pages import notebook_page
from schema_pages import schema_page
from source_pages import linked_sources, with_source_links

ROOT = Path(__file__).parents[2]

INTRODUCTIONS = {
    "recipe": (
        "Recipe",
        "A recipe is a YAML file: one experiment, complete. Every field can be set on the command line by "
        "its dotted path, `--set objective.alpha=0.3`; naming another `kind` starts its block anew. A ratio "
        "may be written as `8/255`. What each method does, and its paper, is in [Methods](../methods.md). "
        "The same as "
        "[JSON schema](../schema/recipe.json), which `temper schema recipe` prints.",
    ),
    "space": (
        "Search space",
        "A search space is a YAML file that says what `temper sweep` varies. How sweeps work is in "
        "[Sweeps](../sweeps.md). The same as [JSON schema](../schema/space.json).",
    ),
    "suite": (
        "Attack suite",
        "A suite of your own is a YAML file that `evaluation.suite` names "
        "([how](../how-to/own-suite.md)). The same as [JSON schema](../schema/suite.json).",
    ),
    "record": (
        "Record",
        "`record.json` holds everything that is claimed of one evaluated model. It is written once and never "
        "changed. Accuracies are fractions from 0 to 1. The same as [JSON schema](../schema/record.json); "
        "which files lie beside it is in [Files](files.md).",
    ),
}


def on_files(files: Files, config: Any) -> Files:
    """Add what is made from the code."""
    from temper.cli.schemas import build_schema

    made = {"reference/cli.md": cli_page(), **api_pages(), **linked_sources(ROOT)}
    for name, (title, introduction) in INTRODUCTIONS.items():
        schema = build_schema(name)  # type: ignore[arg-type]
        made[f"schema/{name}.json"] = json.dumps(schema, indent=2, ensure_ascii=False) + "\n"
        made[f"reference/{name}.md"] = schema_page(title, introduction, schema)
    for notebook in sorted((ROOT / "docs/notebooks").glob("*.ipynb")):
        made[f"notebooks/{notebook.stem}.md"] = notebook_page(notebook)
    for name, text in made.items():
        files.append(File.generated(config, name, content=text))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    """Turn links to code and tests to the pages that show them."""
    return with_source_links(markdown, ROOT / "docs" / page.file.src_uri, ROOT)


def on_post_page(output: str, page: Any, config: Any) -> str:
    """See that a page loads nothing from a network.

    Raises:
        PluginError: it would.
    """
    loaded = re.findall(r"<(?:script|img|iframe|source)\b[^>]*\bsrc=[\"']?(?:https?:)?//[^\s\"'>]+", output)
    loaded += re.findall(
        r"<link\b[^>]*\brel=[\"']?(?:stylesheet|icon|preconnect|preload)[^>]*//[^>]+", output
    )
    if loaded:
        raise PluginError(f"{page.file.src_uri}: loads from a network: {', '.join(loaded)}")
    return output
