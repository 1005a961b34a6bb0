"""The application, and the options that several commands share."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from temper.addresses import is_remote, named
from temper.errors import UsageError

if TYPE_CHECKING:
    from temper.records import Depth

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,  # `temper completion` prints whole scripts, which start no process
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # rich help costs as much start-up again as all the rest
    help="Make a pretrained vision model yours, and hard to fool.",
    context_settings={"help_option_names": ["-h", "--help"]},
)


def here(path: Path) -> Path:
    """``path``, which has to be one of this machine.

    Raises:
        UsageError: it is in S3.
    """
    if is_remote(path):
        raise UsageError(f"{named(path)}: this command works with local folders only")
    return path


def with_leakage(allowed: bool) -> dict[str, bool]:
    """The override that ``--allow-leakage`` is short for; none without it."""
    return {"evaluation.allow_leakage": True} if allowed else {}


def depth_of(bits: int | None, window: tuple[float, float] | None) -> "Depth | None":
    """What ``--bit-depth`` and ``--window`` say.

    Raises:
        UsageError: both, or a window upside down.
    """
    from temper.records import Depth

    if bits is None and window is None:
        return None
    if bits is not None and window is not None:
        raise UsageError("--bit-depth and --window: give one of them")
    try:
        return Depth(bits=bits, window=window)
    except ValueError:
        got = " ".join(f"{value:g}" for value in window or ())
        raise UsageError(f"--window: expected two numbers, the lower one first, got {got}") from None


BitDepth = Annotated[
    int | None,
    typer.Option(
        min=8, max=16, help="Bits that 16-bit files use. [default: those of the set's largest value]"
    ),
]
Window = Annotated[
    tuple[float, float] | None,
    typer.Option(metavar="LOW HIGH", help="Or: the stored values shown as black and white."),
]
MaxPixels = Annotated[
    int | None, typer.Option(min=1, help="Largest width x height of a file; above 89478485 with --size.")
]
MaxBad = Annotated[float, typer.Option(min=0, max=1, help="Fail above this fraction of bad images.")]
FollowLinks = Annotated[
    bool, typer.Option("--follow-links", help="Follow links, also outside of the folder.")
]
Labels = Annotated[
    Path | None,
    typer.Option(help="CSV with file_name, label, group, site. [default: metadata.csv in the folder]"),
]
Group = Annotated[
    str | None, typer.Option(metavar="REGEX", help="Group in a file name, such as '^(p[0-9]+)_'.")
]
GroupNear = Annotated[
    bool, typer.Option("--group-near-duplicates", help="Keep near duplicates in one split, as copies.")
]
Set = Annotated[
    list[str] | None, typer.Option("--set", metavar="PATH=VALUE", help="Override a recipe field; repeatable.")
]
AllowLeakage = Annotated[
    bool,
    typer.Option(
        "--allow-leakage", help="Do not block where test images lie in training too; the record says so."
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print the summary as JSON on stdout.")]
Verbose = Annotated[bool, typer.Option("--verbose", help="Show the output of Ray and other packages.")]
Record = Annotated[Path, typer.Argument(help="A record file, or its run folder.")]
Sample = Annotated[int, typer.Option(min=1, help="Number of images to attack again.")]
Maker = Annotated[
    str | None, typer.Option(metavar="MODULE:FUNCTION", help="Builds a model that was trained elsewhere.")
]
GoOn = Annotated[bool, typer.Option("--go-on", hidden=True)]
"""The earlier name of `--resume`."""
SchemaName = Literal["recipe", "space", "suite", "record"]
"""What there is a JSON schema of."""
Shell = Literal["bash", "zsh", "fish"]
"""Shells that `temper completion` serves."""
