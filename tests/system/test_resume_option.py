"""``--resume`` of the commands that have it, and ``--go-on``, its earlier name."""

import json
from pathlib import Path
from typing import Any

import pytest

from temper.cli.completion import places, recipe_fields
from temper.cli.completion_scripts import SCRIPTS
from temper.recipe import load_recipe
from temper.records import SweepFolder
from temper.search import load_space
from temper.spec import dump_yaml

ROOT = Path(__file__).parents[2]
TINY = ROOT / "jobs/recipes/tiny.yaml"
SPACE = ROOT / "search_spaces/alpha.yaml"
NAMES = ("--resume", "--go-on")


@pytest.fixture
def held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A begun sweep in the working folder, whose images are gone: it can be found, but not run."""
    monkeypatch.chdir(tmp_path)
    folder = SweepFolder(Path("runs/tiny-sweep"))
    folder.path.mkdir(parents=True)
    folder.recipe.write_text(dump_yaml(load_recipe(TINY).resolved()))
    folder.space.write_text(dump_yaml(load_space(SPACE).document()))
    folder.points.touch()
    return folder.path


@pytest.mark.parametrize("name", NAMES)
def test_train_succeeds_at_once_where_all_is_done(command: Any, evaluated_run: Path, name: str) -> None:
    words = ("train", evaluated_run / "recipe.yaml", "--out", evaluated_run, "--json", "--no-probe")
    before = (evaluated_run / "record.json").read_bytes()
    code, out, err = command(*words, name)
    assert code == 0, err
    assert json.loads(out)["clean_acc"] == json.loads(before)["clean_acc"]
    code, _, err = command(*words)
    assert (code, "error:" in err) == (1, True)
    assert (evaluated_run / "record.json").read_bytes() == before


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("place", [("--out", "runs/tiny-sweep"), ()], ids=["out", "default"])
def test_sweep_resumes_what_its_folder_holds(
    command: Any, held: Path, name: str, place: tuple[str, ...]
) -> None:
    code, _, err = command("sweep", TINY, SPACE, *place)
    assert (code, f"already holds a sweep; resume it with `temper sweep --resume {held}`" in err) == (1, True)
    code, _, err = command("sweep", TINY, SPACE, *place, name)
    assert (code, "no shards here" in err) == (1, True), err
    code, _, err = command("sweep", TINY, SPACE, *place, name, "--set", "seed=1")
    assert (code, "holds a sweep of another recipe or space; choose another --out" in err) == (2, True), err


@pytest.mark.parametrize("name", NAMES)
def test_sweep_starts_where_there_is_none_to_resume(command: Any, held: Path, name: str) -> None:
    code, _, err = command("sweep", TINY, SPACE, "--out", "runs/new", name, "--samples", "3")
    assert (code, "is a grid, which tries each of its points once" in err) == (2, True), err


@pytest.mark.parametrize(
    "words",
    [
        ("--resume", "OUT"),
        ("OUT", "--resume"),
        ("--resume=OUT",),
        ("run", "--resume", "OUT", "--max-minutes", "9"),
    ],
    ids=" ".join,
)
def test_a_sweep_s_folder_is_all_that_resuming_needs(
    command: Any, held: Path, words: tuple[str, ...]
) -> None:
    code, _, err = command("sweep", *(word.replace("OUT", str(held)) for word in words))
    assert (code, "no shards here" in err) == (1, True), err
    code, _, err = command("sweep", "--resume", held, "--samples", "9")
    assert (code, "is a grid, which tries each of its points once" in err) == (2, True), err


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("words", "expected", "message"),
    [
        ((), 2, "temper sweep needs a recipe and a search space, or --resume OUT"),
        ((TINY,), 2, "temper sweep needs a recipe and a search space, or --resume OUT"),
        (("runs/tiny-sweep", "--out", "runs/new"), 2, "--resume OUT takes the sweep's folder alone"),
        (("runs/tiny-sweep", "--dry-run"), 2, "--resume OUT takes the sweep's folder alone"),
        (("runs/nothing",), 1, "runs/nothing: holds no sweep"),
    ],
)
def test_what_cannot_be_resumed_is_refused(
    command: Any, held: Path, name: str, words: tuple[Any, ...], expected: int, message: str
) -> None:
    code, _, err = command("sweep", *words, name)
    assert (code, message in err) == (expected, True), err
    assert not Path("runs/nothing").exists()


def test_a_dry_run_shows_a_sweep_that_could_be_resumed(
    command: Any, held: Path, tiny: dict[str, Any]
) -> None:
    images = [part for name, value in tiny.items() for part in ("--set", f"{name}={value}")]
    code, out, err = command("sweep", TINY, SPACE, "--resume", "--dry-run", "--json", *images)
    assert code == 0, err
    assert len(json.loads(out)["trials"]) == 5
    assert (held / "points.jsonl").read_text() == ""


def test_the_earlier_name_is_shown_nowhere(command: Any) -> None:
    for words in (["train"], ["sweep"], ["sweep", "run"]):
        code, out, _ = command(*words, "--help")
        assert (code, "--go-on" in out) == (0, False)
    assert "--resume" in command("train", "--help")[1]
    for script in SCRIPTS.values():
        text = script(list(places()), recipe_fields())
        assert ("resume" in text, "go-on" in text) == (True, False)
    pages = [ROOT / "README.md", *(path for path in (ROOT / "docs").rglob("*.md") if path.name != "log.md")]
    assert [path for path in pages if "--go-on" in path.read_text(encoding="utf-8")] == []
