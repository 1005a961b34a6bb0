"""The commands around training: images, the demo, the doctor."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

import temper
from temper.cli.options import (
    BitDepth,
    FollowLinks,
    Group,
    GroupNear,
    Json,
    Labels,
    MaxBad,
    MaxPixels,
    Set,
    Verbose,
    Window,
    app,
    depth_of,
    here,
)
from temper.cli.results import board_table
from temper.cli.show import finish, progress_bar, say, table_of
from temper.credentials import on_a_line
from temper.defaults import MAX_BAD_FRAC

if TYPE_CHECKING:
    from temper.data import Manifest


NUM_NEAR = 5
"""Near duplicates that are named on the console."""
NUM_NAMED = 20
"""Files of one kind that are named on the console."""


Source = Annotated[
    Path, typer.Argument(help="Class folders, SRC/train/<class>/* or SRC/<class>/*, or an archive.")
]
Size = Annotated[int | None, typer.Option(min=8, help="Downscale the long side to this, in pixels.")]
ValFrac = Annotated[float, typer.Option("--val", min=0.01, max=0.9, help="Fraction for validation.")]
TestFrac = Annotated[float, typer.Option("--test", min=0.01, max=0.9, help="Fraction for the test split.")]


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"temper {temper.__version__}")
        raise typer.Exit


@app.callback()
def _main(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Options that come before a command."""


@app.command(epilog="Example: temper shards photos shards/photos --size 96")
def shards(
    src: Source,
    dst: Annotated[Path, typer.Argument(help="The folder to write shards to.")],
    out: Annotated[Path | None, typer.Option(help="Another way to give DST; overrides it.")] = None,
    size: Size = None,
    bit_depth: BitDepth = None,
    window: Window = None,
    max_pixels: MaxPixels = None,
    follow_links: FollowLinks = False,
    val_frac: ValFrac = 0.15,
    test_frac: TestFrac = 0.2,
    max_bad: MaxBad = MAX_BAD_FRAC,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the splits.")] = 0,
    labels: Labels = None,
    group: Group = None,
    group_near: GroupNear = False,
    as_json: Json = False,
    verbose: Verbose = False,
) -> None:
    """Convert class folders, or images with a table of labels, to Parquet shards with a manifest."""
    from temper.data import write_shards

    destination = out or dst
    with progress_bar("images") as update:
        manifest = write_shards(
            src,
            destination,
            size=size,
            depth=depth_of(bit_depth, window),
            max_pixels=max_pixels,
            follow_links=follow_links,
            seed=seed,
            val_frac=val_frac,
            test_frac=test_frac,
            max_bad_frac=max_bad,
            labels=labels,
            group=group,
            group_near_duplicates=group_near,
            on_progress=lambda done, total: update(done, total, ""),
        )
    _show_manifest(manifest, destination, as_json)


def _show_manifest(manifest: "Manifest", destination: Path, as_json: bool) -> None:
    for image in manifest.skipped:
        say(f"skipped {on_a_line(image.path)}: {image.reason}")
    for what, listed in (("refused", manifest.refused), ("read in part:", manifest.partly)):
        for image in listed[:NUM_NAMED]:
            say(f"{what} {on_a_line(image.path)}: {image.reason}")
        if len(listed) > NUM_NAMED:
            say(f"{what} {len(listed) - NUM_NAMED} more; manifest.json names all")
    if manifest.attributes:
        alone = "; no column is called 'group', so all images count as independent"
        say(f"attributes: {', '.join(manifest.attributes)}{'' if 'group' in manifest.attributes else alone}")
    _show_copies(manifest)
    splits = list(manifest.counts)
    rows = [[name, *(manifest.counts[split][name] for split in splits)] for name in manifest.classes]
    table = table_of(f"{manifest.name}, {manifest.fingerprint}", ["class", *splits], rows)
    summary = {"shards": str(destination), **manifest.model_dump(mode="json", exclude={"splits", "origins"})}
    finish(summary, table, as_json=as_json)
    if manifest.depth is not None:
        hint = "" if manifest.depth.largest is None else " (--bit-depth or --window LOW HIGH to change it)"
        say(f"images of more than 8 bits: {manifest.depth}{hint}")
    say(f"shards: {destination}\n{manifest.files}")


def _show_copies(manifest: "Manifest") -> None:
    """Name pictures that lie in several classes or splits."""
    leaks = manifest.across_splits
    twice = [one for one in manifest.copies or () if len(one.classes) > 1]
    for where, found in (("splits", leaks), ("classes", twice)):
        for one in found[:NUM_NAMED]:
            say(f"the same picture in several {where}: {on_a_line(one)}")
        if len(found) > NUM_NAMED:
            say(f"{len(found) - NUM_NAMED} more pictures in several {where}; manifest.json names all")
    if manifest.copies:
        num_rows, num_pictures = sum(len(one.rows) for one in manifest.copies), len(manifest.copies)
        inside = f"{len(leaks)} in several splits, {len(twice)} in several classes"
        pictures = f"{num_pictures} picture{'' if num_pictures == 1 else 's'}"
        say(f"copies: {num_rows} images show {pictures}; {inside}")
    for group in manifest.straddling[:NUM_NAMED]:
        say(f"a group in several splits: {on_a_line(group)}")
    if len(manifest.straddling) > NUM_NAMED:
        say(f"{len(manifest.straddling) - NUM_NAMED} more groups in several splits; manifest.json names all")
    _show_near(manifest)
    blocking = [
        *leaks,
        *manifest.straddling,
        *(manifest.near_across_splits if manifest.near_are_grouped else ()),
    ]
    if blocking:
        say(
            "evaluations of these shards are blocked (gate 'leakage'): fix the splits, or use --allow-leakage"
        )


def _show_near(manifest: "Manifest") -> None:
    """Name pictures that are nearly the same, those in several splits first."""
    across = manifest.near_across_splits
    near = [*across, *(one for one in manifest.near_duplicates or () if one not in across)]
    for one in near[:NUM_NEAR]:
        say(f"nearly the same{' in several splits' if one in across else ''}: {on_a_line(one.joined(' ~ '))}")
    if near:
        todo = "; --group-near-duplicates keeps them together" if not manifest.near_are_grouped else ""
        num_rows = sum(len(one.rows) for one in near)
        say(f"near duplicates: {num_rows} images, {len(near)} motifs; {len(across)} in several splits{todo}")


@app.command(epilog="Example: temper demo --out demo")
def demo(
    overrides: Set = None,
    out: Annotated[Path, typer.Option(help="Output folder.")] = Path("demo"),
    as_json: Json = False,
    verbose: Verbose = False,
) -> None:
    """Run everything on embedded data in about two minutes."""
    from temper.cli.watch import watching
    from temper.demo import run_demo
    from temper.spec import parse_assignments

    changes = parse_assignments(overrides or [])
    with watching() as watch:
        result = run_demo(here(out), changes, watch=watch, verbose=verbose)
    summary = {**result.sweep.model_dump(), "page": str(result.page), "report": str(result.report)}
    finish(summary, board_table(result.leaderboard), as_json=as_json)
    say(f"report: {result.report}\nleaderboard: {result.page}")


@app.command(epilog="Example: temper doctor")
def doctor(as_json: Json = False, verbose: Verbose = False) -> None:
    """Check that this machine can run temper."""
    from temper.cli.doctor import examine

    checks = examine()
    rows = [[check.name, "ok" if check.passed else "PROBLEM", check.found] for check in checks]
    finish(
        {check.name: {"passed": check.passed, "found": check.found} for check in checks},
        table_of(f"temper {temper.__version__}", ["what", "state", "found"], rows),
        as_json=as_json,
    )
    if not all(check.passed for check in checks):
        raise typer.Exit(1)
