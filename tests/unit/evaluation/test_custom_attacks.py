"""An attack from a user's file: it runs, it counts, and it is known by its code."""

import re
from pathlib import Path
from typing import Any

import pytest

from temper.cluster.evaluate import evaluate_external
from temper.errors import ModelError, RecipeError
from temper.evaluation import suite_for
from temper.run.external_model import ExternalModelSpec

PAGE = Path(__file__).parents[3] / "docs/how-to/adaptive-attack.md"
NAMES = ("defended.py", "attack.py", "adaptive.yaml")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The files of the page, in the working folder."""
    codes = re.findall(r"```(?:python|yaml)\n(.*?)```", PAGE.read_text(), re.DOTALL)
    for name, code in zip(NAMES, codes, strict=True):
        (tmp_path / name).write_text(code)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def spec(digits: dict[str, Path], suite: str) -> ExternalModelSpec:
    document: dict[str, Any] = {
        "name": "defended",
        "model": "defended.py:build",
        "shards": digits["target"],
        "image_size": 8,
        "threat": {"norm": "linf", "eps": 0.1},
        "evaluation": {"suite": suite, "max_images": 60},
    }
    return ExternalModelSpec.model_validate(document)


def test_the_page_s_attack_breaks_the_page_s_defence(folder: Path, digits: dict[str, Path]) -> None:
    unaware = evaluate_external(spec(digits, "quick"), folder / "unaware")
    adapted = evaluate_external(spec(digits, "adaptive.yaml"), folder / "adapted")
    assert unaware.robust_acc.value > 0.9
    assert unaware.status == "blocked"
    assert adapted.robust_acc.value < 0.7
    own = next(attack for attack in adapted.attacks if attack.name == "perturb")
    assert own.num_fooled > 0.2 * own.num_attacked
    assert own.num_rejected == 0


def test_a_suite_is_known_by_the_code_of_its_attacks(folder: Path) -> None:
    before = suite_for("adaptive.yaml", "linf")
    assert suite_for("adaptive.yaml", "linf").hash == before.hash
    with (folder / "attack.py").open("a") as file:
        file.write("# the same, but for a remark\n")
    assert suite_for("adaptive.yaml", "linf").hash != before.hash
    digest = before.members[-1].model_dump()["sha256"]
    (folder / "adaptive.yaml").write_text(
        f'{{name: a, members: [{{kind: custom, attack: "attack.py:perturb", sha256: "{digest}"}}]}}'
    )
    with pytest.raises(RecipeError, match="it was changed since"):
        suite_for("adaptive.yaml", "linf")


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("def other(): pass", "no function 'perturb'"),
        ("def perturb(:", "attack.py is not valid Python: .*line 1"),
        (None, "attack.py: no such file"),
    ],
)
def test_a_file_that_holds_no_attack_is_refused_with_the_suite(
    folder: Path, code: str | None, said: str
) -> None:
    (folder / "attack.py").unlink()
    if code is not None:
        (folder / "attack.py").write_text(code)
    with pytest.raises(RecipeError, match=said):
        suite_for("adaptive.yaml", "linf")


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("return images[:1]", r"returned \(1, 3, 8, 8\), expected images \(\d+, 3, 8, 8\)"),
        ("return None", "returned NoneType"),
        ("return model(images, 7)", r"attack.py:perturb failed in line 2 \(TypeError"),
    ],
)
def test_an_attack_that_fails_says_where(folder: Path, digits: dict[str, Path], body: str, said: str) -> None:
    (folder / "attack.py").write_text(f"def perturb(model, images, labels, threat, generator):\n    {body}\n")
    with pytest.raises(ModelError, match=said):
        evaluate_external(spec(digits, "adaptive.yaml"), folder / "out")


def test_what_leaves_the_threat_model_is_not_counted(folder: Path, digits: dict[str, Path]) -> None:
    code = "def perturb(model, images, labels, threat, generator):\n    return 1 - images\n"
    (folder / "attack.py").write_text(code)
    record = evaluate_external(spec(digits, "adaptive.yaml"), folder / "out")
    own = next(attack for attack in record.attacks if attack.name == "perturb")
    assert own.num_fooled == 0
    assert own.num_rejected == own.num_attacked
