"""The words of a job: what ``temper`` itself would make of them, checked before they are sent."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from temper.cli.options import app
from temper.errors import UsageError

if TYPE_CHECKING:
    from temper.cluster.jobs import Parcel

COMMANDS = ("train", "sweep", "crossval", "evaluate", "demo", "shards", "leaderboard")
"""What runs as a job."""
SENT_FOLDER = "/runtime_resources/working_dir_files/"
"""Part of the path of a folder that was sent to Ray with a job."""
RESUMED_BY_OPTION = ("train", "sweep")
"""Get ``--resume``, so that the same words resume. The others resume by themselves, or are short."""


@dataclass(frozen=True)
class Words:
    """A command of temper with its parsed parameters."""

    words: tuple[str, ...]
    parameters: dict[str, Any]

    @property
    def command(self) -> str:
        return self.words[0]

    @property
    def sent(self) -> tuple[str, ...]:
        """What the job runs."""
        if self.command in RESUMED_BY_OPTION and not self.resumes:
            return (*self.words, "--resume")
        return self.words

    @property
    def resumes(self) -> bool:
        """Whether the words themselves ask for it, by the present name or the earlier one."""
        return bool(self.parameters.get("resume") or self.parameters.get("go_on"))

    @property
    def resumed_sweep(self) -> Path | None:
        """The folder in ``sweep --resume OUT``, which needs no recipe."""
        is_alone = self.command == "sweep" and self.resumes and self.parameters["space"] is None
        return self.parameters["recipe"] if is_alone else None

    @property
    def out(self) -> str:
        """Where the result goes, as every node sees it.

        Raises:
            UsageError: it isn't said, or it would be in the folder that the job runs in, which goes with it.
        """
        place = self.parameters.get("out") or self.resumed_sweep
        if place is None:
            # What these make without --out stands there too.
            place = self.parameters.get({"evaluate": "model", "shards": "dst"}.get(self.command, ""))
        if place is None:
            raise UsageError(
                f"a job needs --out: storage that every node sees, such as /shared/runs/{self.command}"
            )
        shown = as_written(place)
        if not is_shared(shown):
            raise UsageError(
                f"--out {shown} is relative: it would be in the job's own folder, which the cluster "
                "removes. Name storage that every node sees, such as /shared/runs/NAME or "
                "s3://BUCKET/runs/NAME"
            )
        return shown


def parse_words(words: Sequence[str]) -> Words:
    """Parse them as the command line would, which refuses unknown options and values.

    Raises:
        UsageError: it is no command that runs as a job.
    """
    if not words or words[0] not in COMMANDS:
        got = f"got {words[0]!r}" if words else "got nothing"
        raise UsageError(
            f"expected a command after --: one of {', '.join(COMMANDS)}, with its arguments; {got}"
        )
    command: Any = typer.main.get_command(app)
    context, rest, path = None, list(words), []
    while hasattr(command, "resolve_command"):  # a group; typer has no public class for it
        context = command.make_context("temper", rest, parent=context)
        name, command, rest = command.resolve_command(context, [*context._protected_args, *context.args])
        path.append(name)
    if path not in ([words[0]], ["sweep", "run"]):
        raise UsageError(f"temper {' '.join(path)} only shows results and cannot run as a job")
    parsed = command.make_context(path[-1], rest, parent=context)
    return Words(tuple(words), dict(parsed.params))


def refuse_lost_results(words: Sequence[str]) -> None:
    """Within a job of Ray, refuse a result that would go with the folder that Ray made for the job.

    ``temper job submit`` looks before it sends; plain ``ray job submit`` does not.

    Raises:
        UsageError: the result's place is relative, or not said.
    """
    try:
        is_sent = SENT_FOLDER in Path.cwd().as_posix()
    except OSError:  # the folder is gone; the command will say so
        return
    if is_sent and words and words[0] in COMMANDS and not {"-h", "--help"} & set(words):
        _ = parse_words(words).out


def check_words(words: Words, parcel: "Parcel") -> dict[str, str]:
    """Check recipe and space as they are in the folder; what is read on the cluster, by its purpose.

    Raises:
        UsageError: a file that isn't sent, a recipe or space that is not valid, a path of this machine.
    """
    parameters = words.parameters
    if parameters.get("dry_run"):
        raise UsageError("--dry-run: put it before the --, or run the command here, without a cluster")
    reads: dict[str, str] = {}
    for purpose, place in _places(words, parcel):
        if is_shared(place):
            reads[purpose] = place
        elif "://" not in place and not parcel.holds(place):
            raise UsageError(
                f"{purpose}: {place} is not sent to the cluster; put it on storage that every node sees, "
                "and give its absolute path"
            )
    return reads


def _places(words: Words, parcel: "Parcel") -> Iterator[tuple[str, str]]:
    """Everything that the job reads, by what it is for."""
    parameters = words.parameters
    if words.command in ("train", "sweep", "crossval") and words.resumed_sweep is None:
        yield from _places_of_recipe(words, parcel)
    for target in parameters.get("target") or []:
        yield "--target", as_written(target)
    if words.resumed_sweep is not None:
        yield "--resume", as_written(words.resumed_sweep)
    if words.command == "shards":
        yield "the images", as_written(parameters["src"])
    for result in parameters.get("results") or []:
        yield "the results", as_written(result)
    if parameters.get("compare") is not None:
        yield "--compare", as_written(parameters["compare"])
    if words.command == "evaluate":
        yield from _places_of_evaluation(parameters)


def _places_of_evaluation(parameters: dict[str, Any]) -> Iterator[tuple[str, str]]:
    model = str(parameters["model"])
    file, colon, _ = model.partition(":")
    if not colon or "://" in model:
        yield "the model", model
    elif file.endswith(".py"):
        yield "the model", file
    if parameters.get("data") is not None:
        yield "--data", as_written(parameters["data"])
    for test in parameters.get("test") or []:
        yield "--test", test.partition("=")[2]


def _places_of_recipe(words: Words, parcel: "Parcel") -> Iterator[tuple[str, str]]:
    from temper.recipe import build_recipe
    from temper.spec import apply_overrides, parse_assignments, read_yaml

    parameters = words.parameters
    recipe = parameters.get("recipe")
    if recipe is None:
        raise UsageError(f"temper {words.command} needs a recipe")
    document = apply_overrides(
        read_yaml(_sent(recipe, parcel)), parse_assignments(parameters["overrides"] or [])
    )
    spec = build_recipe(document, where=str(recipe))
    if words.command == "sweep":
        from temper.search import check_space, load_space

        if parameters.get("space") is None:
            raise UsageError("temper sweep needs a recipe and a search space, or --resume OUT")
        changes = {
            name: parameters[name] for name in ("samples", "max_minutes") if parameters[name] is not None
        }
        space = load_space(_sent(parameters["space"], parcel), changes)
        check_space(space, document, str(parameters["space"]))
    if not parameters.get("target"):
        yield "data.target", as_written(spec.data.target)
    if spec.data.source is not None:
        yield "data.source", as_written(spec.data.source)
    for name, place in spec.data.tests.items():
        yield f"data.tests.{name}", as_written(place)
    weights = spec.model.weights
    if weights not in (None, "pretrained"):
        yield "model.weights", as_written(weights)


def _sent(path: Path, parcel: "Parcel") -> Path:
    if path.is_absolute() or not parcel.holds(str(path)):
        raise UsageError(
            f"{path}: not in {parcel.folder}, or not sent; recipes and spaces are sent with that folder"
        )
    return parcel.folder / path


def is_shared(place: str) -> bool:
    """Whether a path may mean the same on every node."""
    return place.startswith(("/", "s3://"))


def as_written(place: object) -> str:
    """A path that may have been a URL, which loses a slash on its way through ``Path``."""
    text = os.fspath(place) if isinstance(place, os.PathLike) else str(place)
    scheme, slash, rest = text.partition(":/")
    is_url = bool(slash) and len(scheme) > 1 and scheme.isalnum() and not rest.startswith("/")
    return f"{scheme}://{rest}" if is_url else text
