"""What is written is run: every command of the README and the docs is run, checked, or marked with a reason.

A fence of shell commands may have a line ``<!-- not run: REASON -->`` above it. Commands of temper in it are
checked nevertheless; others need either the mark or a check of their own below.
"""

import ast
import importlib
import re
import shlex
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
import yaml
from PIL import Image

import temper.cli  # its commands enter the application as they are imported
from temper.cli.job_command import COMMANDS as JOBS
from temper.cli.options import app
from temper.evaluation.suite import Suite
from temper.recipe import Recipe, build_recipe
from temper.search import check_space, load_space
from temper.spec import apply_overrides, parse_assignments, read_yaml

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
EXAMPLES = sorted([*(ROOT / "jobs/recipes").glob("*.yaml"), *(ROOT / "search_spaces").glob("*.yaml")])
SHELLS = ("bash", "sh", "shell", "console")

RUN = {"plan", "doctor", "models", "schema", "completion", "examples", "shards", "compare", "verify",
       "leaderboard", "submit-entry", "import-entry", "check-board", "calibrate", "predict",
       "export"}  # fmt: skip
"""Commands that are run as they stand, in a folder that has what they need; ``sweep --dry-run`` is, too."""
CHECKED = {
    "train": "trains; the tutorial's are run by `make test-long`",
    "sweep": "trains, on a cluster of its own; the tutorial's is run by `make test-long`",
    "crossval": "trains fifteen models",
    "fit": "trains, on a cluster of its own; run in tests/cluster/test_fit.py",
    "demo": "trains, on a cluster of its own; run by `make test-long`",
    "evaluate": "attacks for minutes; the tutorial's is run by `make test-long`",
    "merge": "needs a run with an adapter; run in tests/unit/models",
    "serve": "does not end by itself; run in tests/system/test_leaderboard_page.py",
    "job": "needs a cluster; what is sent is checked, and jobs are run in tests/system/test_jobs.py",
}
"""Commands that are parsed, and whose recipes, spaces and settings are built; with the reason."""


SETS = ("chest_xray", "cifar10", "fashion_mnist", "magnetic_tile", "sign_digits", "traffic_signs")
IMAGE_SETS = [f"images/{name}" for name in SETS]
"""What the docs find under $TEMPER_DATA."""


@dataclass(frozen=True)
class Command:
    """One command of a page, in words without comments and redirections."""

    page: Path
    line: int
    words: list[str]
    mark: str | None

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}: {' '.join(self.words)}"


def commands_of(page: Path) -> Iterator[Command]:
    """Those in its fences of shell commands, in order; in ``console`` the lines after ``$``."""
    for language, line, body, mark in fences_of(page):
        if language not in SHELLS:
            assert language or not re.search(r"^(\$ )?(temper|make) ", body), f"{page}:{line}: say ```bash"
            continue
        whole = re.sub(r"\\\n\s*", " ", body)
        if language == "console":
            whole = "\n".join(one[2:] for one in whole.splitlines() if one.startswith("$ "))
        for one in whole.splitlines():
            yield from (Command(page, line, words, mark) for words in split(one))


def split(line: str) -> Iterator[list[str]]:
    """The commands of a line; variables as they are in the folder that commands are run in."""
    lexer = shlex.shlex(line.replace("$TEMPER_DATA", "images"), posix=True, punctuation_chars="&;<>")
    lexer.whitespace_split = True
    words: list[str] = []
    redirects = False
    for word in [*lexer, ";"]:
        if word in ("&&", ";"):
            if words:
                yield words
            words, redirects = [], False
        elif word in ("<", ">", ">>"):
            redirects = True
        elif not redirects:
            words.append(word.replace("$PWD", str(Path.cwd())))


def fences_of(page: Path) -> Iterator[tuple[str, int, str, str | None]]:
    """Language, line, text and the mark above, if there is one."""
    lines = page.read_text(encoding="utf-8").splitlines()
    start: int | None = None
    for number, line in enumerate(lines):
        if not line.startswith("```"):
            continue
        if start is None:
            start = number
            continue
        above = lines[start - 1] if start else ""
        mark = re.fullmatch(r"<!-- not run: (.{10,}) -->", above)
        yield lines[start][3:].strip(), start + 1, "\n".join(lines[start + 1 : number]), mark and mark[1]
        start = None
    assert start is None, f"{page}: a fence without an end"


def parse(words: list[str]) -> tuple[list[str], dict[str, Any]]:
    """The command's path and parameters, as the command line makes them; it refuses what it does not know."""
    command: Any = typer.main.get_command(app)
    context, path, rest = None, [], words
    while hasattr(command, "resolve_command"):
        context = command.make_context("temper", rest, parent=context)
        name, command, rest = command.resolve_command(context, [*context._protected_args, *context.args])
        path.append(name)
    return path, command.make_context(path[-1], rest, parent=context).params


def check(words: list[str]) -> None:
    """See that temper would take them: options, recipe, settings and space, all by its own code."""
    path, given = parse(words)
    document: dict[str, Any] = {}
    is_folder_alone = given.get("resume") and path[0] == "sweep" and given["space"] is None
    if given.get("recipe") is not None and not is_folder_alone:
        document = apply_overrides(read_yaml(given["recipe"]), parse_assignments(given["overrides"] or []))
        build_recipe(document, where=str(given["recipe"]))
    elif given.get("overrides"):
        document = read_yaml(Path("jobs/recipes/digits.yaml"))
        build_recipe(apply_overrides(document, parse_assignments(given["overrides"])))
    if given.get("space") is not None:
        check_space(load_space(given["space"]), document, str(given["space"]))
    if path == ["job", "submit"]:
        assert given["words"][0] in JOBS, given["words"]
        check(list(given["words"]))


@pytest.fixture(scope="module")
def world(digits: dict[str, Path], evaluated_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder like a user's: the repository's files, photos, shards and runs by the names of the docs."""
    folder = tmp_path_factory.mktemp("world")
    for name in ("jobs", "search_spaces", "bench", "cluster.yaml", "Makefile"):
        (folder / name).symlink_to(ROOT / name)
    for place in ("shards", "demo/shards"):
        (folder / place).mkdir(parents=True)
        for task in ("source", "target"):
            (folder / place / f"digits_{task}").symlink_to(digits[task])
    for name in ("signs", "sign_digits", "traffic_signs"):
        (folder / "shards" / name).symlink_to(digits["target"])
    for place in ("photos", *IMAGE_SETS):
        draw_photos(folder / place)
    sweeps = [f"{domain}-sweep" for domain in ("medical", "manufacturing", "traffic")]
    for name in ("hard", "plain", "photos", "medical", "zoo", "tiny", "medical-objects", *sweeps):
        shutil.copytree(evaluated_run, folder / "runs" / name)
    shutil.copytree(folder / "photos/cup", folder / "images/new")
    shutil.copy(folder / "photos/cup/1.png", folder / "a.png")
    return folder


def draw_photos(folder: Path) -> None:
    """Two classes of noise."""
    generator = np.random.default_rng(0)
    for name in ("cup", "plate"):
        (folder / name).mkdir(parents=True)
        for index in range(12):
            pixels = generator.integers(0, 256, (40, 48, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{index}.png")


@pytest.fixture(scope="module")
def already() -> set[str]:
    """Commands that have been run: what stands in several pages is run once."""
    return set()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_command_is_run_or_checked_or_marked(
    page: Path, world: Path, already: set[str], command: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(world)
    save_files(page, "json", world)
    for one in commands_of(page):
        first, *rest = one.words
        if first != "temper":
            assert is_known(first, rest) or one.mark, f"{one}: neither checked nor marked `not run: REASON`"
            continue
        check(rest)
        assert rest[0] in RUN | set(CHECKED), f"{one}: run it, or say in CHECKED why not"
        is_here = not any("s3://" in word for word in rest)  # those in S3 are run in tests/s3
        is_run = rest[0] in RUN or (rest[0] == "sweep" and "--dry-run" in rest)
        if is_here and is_run and shlex.join(rest) not in already:
            already.add(shlex.join(rest))
            forget(rest)
            code, _, error = command(*rest)
            assert code == 0, f"{one}: {error}"


def save_files(page: Path, language: str, folder: Path) -> None:
    """What the page shows below the name of a file that is to be saved."""
    text = page.read_text(encoding="utf-8")
    pattern = rf"`([\w/]+\.\w+)`:\n\n```{language}\n(.*?)```"
    for name, content in re.findall(pattern, text, re.DOTALL):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content)


def forget(words: list[str]) -> None:
    """Remove shards that an earlier page made, or only names: they are never overwritten."""
    if words[0] != "shards":
        return
    place = Path(words[2])
    if place.is_symlink():
        place.unlink()
    shutil.rmtree(place, ignore_errors=True)


def is_known(first: str, rest: list[str]) -> bool:
    """Whether what is no command of temper can be seen to be right."""
    if first == "make":
        targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
        return all(word in targets for word in rest if "=" not in word)
    if first.endswith("python"):
        ast.parse((ROOT / rest[0]).read_text(encoding="utf-8"))
        return True
    if [first, *rest[:2]] == ["ray", "job", "submit"]:
        _, script, *given = rest[rest.index("--") + 1 :]
        check([Path(script).stem, *given])
        return (ROOT / script).exists()
    if first in ("export", "source", "cd"):
        return first != "export" or all(re.match(r"[A-Z_]+=", word) for word in rest)
    if first.endswith("pytest"):
        return all((ROOT / word).exists() for word in rest if "/" in word)
    return False


@pytest.mark.parametrize(
    "line",
    [
        "temper train jobs/recipes/digits.yaml --set objctive.alpha=1",
        "temper train jobs/recipes/nothing.yaml",
        "temper train jobs/recipes/digits.yaml --sets name=a",
        "temper sweep jobs/recipes/photos.yaml search_spaces/nothing.yaml",
        "temper job submit --id a -- polish runs --out /a",
        "temper polish",
    ],
)
def test_a_wrong_command_is_noticed(line: str, world: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(world)
    (words,) = split(line)
    with pytest.raises(Exception, match=r"objctive|nothing|--sets|polish"):
        check(words[1:])


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_the_commands_in_the_headers_of_examples_are_ones(
    path: Path, world: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(world)
    text = path.read_text(encoding="utf-8")
    found = re.findall(r"^#   (temper .*)$", text, re.MULTILINE)
    assert found
    for one in found:
        for words in split(one):
            check(words[1:])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_within_sentences_exist_with_their_options(page: Path) -> None:
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    for span in re.findall(r"`(temper [^`]+)`", text):
        words = " ".join(span.split()).replace("|", " ").split()[1:]
        place: Any = typer.main.get_command(app)
        while words and words[0] in getattr(place, "commands", {}):
            place = place.commands[words.pop(0)]
        if hasattr(place, "commands") and "run" in place.commands:
            place = place.commands["run"]
        known = {name for one in place.params for name in (*one.opts, *one.secondary_opts)} | {"--help"}
        inner = words.index("--") if "--" in words else len(words)
        wrong = [word for word in words[:inner] if word.startswith("-") and word.split("=")[0] not in known]
        assert not wrong, f"{page.name}: `{span}`: no option {wrong[0]}"
        is_command = not hasattr(place, "commands") or not words or words[0].isupper() or words[0] in known
        assert is_command, f"{page.name}: `{span}`: no such command"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_yaml_and_python_in_pages_are_valid(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    digits = read_yaml(ROOT / "jobs/recipes/digits.yaml")
    # A suite may name an attack's file, which the page says to save.
    monkeypatch.chdir(tmp_path)
    save_files(page, "python", tmp_path)
    for language, line, body, _ in fences_of(page):
        where = f"{page.relative_to(ROOT)}:{line}"
        if language == "yaml":
            document = yaml.safe_load(body)
            if document and "members" in document:
                Suite.model_validate(document)
            elif document and set(document) <= set(Recipe.model_fields):
                build_recipe({**digits, **document}, where=where)
        elif language == "python":
            check_imports(ast.parse(body), where)


def check_imports(tree: ast.Module, where: str) -> None:
    """See that what it imports of temper is there."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("temper"):
            module = importlib.import_module(node.module or "")
            for alias in node.names:
                assert hasattr(module, alias.name), f"{where}: {node.module} has no {alias.name}"
        elif isinstance(node, ast.Attribute) and ast.unparse(node.value) == "temper":
            assert hasattr(temper, node.attr), f"{where}: temper has no {node.attr}"


@pytest.mark.long
def test_the_tutorial_s_commands_run_in_order(
    tmp_path: Path, command: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As they stand, but for the installation: the demo, two trainings, comparison, evaluation, board."""
    for name in ("jobs", "search_spaces"):
        (tmp_path / name).symlink_to(ROOT / name)
    monkeypatch.chdir(tmp_path)
    for one in commands_of(ROOT / "docs/tutorial.md"):
        if one.words[0] == "temper":
            code, _, error = command(*one.words[1:])
            assert code == 0, f"{one}: {error}"
    assert (tmp_path / "board/index.html").exists()
