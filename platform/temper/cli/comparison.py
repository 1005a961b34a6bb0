"""The command that compares two evaluated models."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from temper.cli.options import Json, Verbose, app
from temper.cli.show import finish, say, table_of

if TYPE_CHECKING:
    from rich.table import Table

    from temper.comparison import ComparisonRecord, PairedDifference

MAX_CLASS_ROWS = 10


@app.command(epilog="Example: temper compare runs/a runs/b")
def compare(
    a: Annotated[Path, typer.Argument(help="A run folder, a record file, or a folder of several seeds.")],
    b: Annotated[Path, typer.Argument(help="The same, to compare with A.")],
    out: Annotated[Path | None, typer.Option(help="Output folder of compare.json and compare.md.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the bootstrap.")] = 0,
    as_json: Json = False,
    verbose: Verbose = False,
) -> None:
    """Compare two evaluated models image by image: is one better?"""
    from temper.comparison import compare as compare_models
    from temper.comparison import to_markdown
    from temper.records import write_atomic
    from temper.storage import fetched, mirrored

    comparison = compare_models(fetched(a), fetched(b), seed=seed)
    for warning in comparison.warnings:
        say(f"warning: {warning}")
    if comparison.robust_refused:
        say(f"robust accuracy is not compared: {comparison.robust_refused}")
    if out is not None:
        with mirrored(out) as folder:
            write_atomic(folder / "compare.json", comparison.model_dump_json(indent=2) + "\n")
            write_atomic(folder / "compare.md", to_markdown(comparison))
    finish(comparison.model_dump(mode="json"), _table(comparison, verbose), as_json=as_json)
    if out is not None:
        say(f"comparison: {out / 'compare.md'}")


def _table(comparison: "ComparisonRecord", verbose: bool) -> "Table":
    """The overall rows, then the classes that differ most; --verbose shows every class."""
    from temper.comparison.page import name_of, overall, p_value, sentence
    from temper.formats import points

    def row(one: "PairedDifference") -> list[str]:
        low, high = points(one.interval.low), points(one.interval.high)
        return [
            name_of(one, comparison),
            f"{100 * one.acc_a:.1f}",
            f"{100 * one.acc_b:.1f}",
            f"{points(one.difference)} ({low}, {high})",
            f"{one.cells.only_a}/{one.cells.only_b}",
            p_value(one),
        ]

    classes = comparison.per_class
    if not verbose and len(classes) > MAX_CLASS_ROWS:
        classes = sorted(classes, key=lambda one: -abs(one.difference))[:MAX_CLASS_ROWS]
    table = table_of(
        f"A {comparison.a}, B {comparison.b}: {comparison.num_images} images, intervals at 95 %",
        ["accuracy", "A %", "B %", "A - B, points", "only A/B", "p"],
        [row(one) for one in (*overall(comparison), *classes)],
    )
    left_out = len(comparison.per_class) - len(classes)
    lines = [sentence(one) for one in overall(comparison)]
    lines += [f"{left_out} more class rows: --verbose, --json or --out"] if left_out else []
    table.caption, table.caption_justify, table.caption_style = "\n".join(lines), "left", ""
    return table
