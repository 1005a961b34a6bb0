"""What `temper fit` says to bad input: one line each, before anything is trained."""

from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    for name, count in {"cup": 1, "plate": 9}.items():
        (tmp_path / "photos" / name).mkdir(parents=True)
        for index in range(count):
            Image.new("RGB", (40, 30), (20 * index, 0, 0)).save(tmp_path / "photos" / name / f"{index}.png")
    return tmp_path / "photos"


@pytest.mark.parametrize(
    ("words", "code", "problem"),
    [
        ("photos", 1, "the class 'cup' has 1 training image; each needs 3 or more"),
        ("nothing", 1, "nothing: no such folder"),
        ("photos/cup", 1, "expected a folder for each of at least two classes"),
        ("photos --backbone resnet9", 2, "--backbone: no backbone 'resnet9' (did you mean 'resnet8'?)"),
        ("photos --weights old.pth", 2, "name their network with --backbone"),
        ("photos --eps 2", 2, "did you mean 2/255?"),
        ("photos --norm l7", 2, "'norm': Input should be 'linf', 'l2' or 'l1', got 'l7'"),
        ("photos --source nothing", 1, "nothing: no such folder"),
        ("photos --resume old", 2, "--resume takes the fit's folder alone"),
        ("--resume old --eps 4/255 --labels a.csv", 2, "leave out --eps, --labels"),
        ("photos --bit-depth 12 --window 0 9", 2, "--bit-depth and --window: give one of them"),
        ("photos --window 9 0", 2, "expected two numbers, the lower one first, got 9 0"),
        ("photos --labels no.csv", 1, "no.csv"),
        ("photos --group ^(x)", 1, "^(x)"),
        ("--resume old", 1, "old: holds no fit (fit.json is needed)"),
        ("", 2, "temper fit needs a folder of images, or --resume OUT"),
    ],
)
def test_bad_input_gets_one_line(
    words: str, code: int, problem: str, photos: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(photos.parent)
    exit_code, output, said = command("fit", *words.split())
    lines = [line for line in said.splitlines() if line.startswith("error: ")]
    assert (exit_code, output, len(lines)) == (code, "", 1)
    assert problem in lines[0]
    assert "Traceback" not in said
    assert not list(photos.parent.glob("runs/*/sweep"))


def test_words_about_files_are_refused_where_there_are_shards(
    digits: dict[str, Path], command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    code, _, said = command("fit", str(digits["target"]), "--group", "^(p)", "--follow-links")
    assert code == 2
    assert said.splitlines()[-1].startswith("error: --follow-links, --group: ")
    assert "holds shards" in said
    assert not (tmp_path / "runs").exists()


def test_a_size_that_a_network_cannot_take_is_told(
    photos: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before Ray is started, and before weights are looked for."""
    monkeypatch.chdir(photos.parent)
    for index in range(2, 9):
        Image.new("RGB", (40, 30), (0, 20 * index, 0)).save(photos / "cup" / f"{index}.png")
    code, _, said = command("fit", "photos", "--backbone", "small_vit", "--size", "31")
    assert code == 1
    assert said.splitlines()[-1].startswith("error: ")
    assert "31" in said.splitlines()[-1]
