"""Completion, asked in the shells themselves."""

import shutil
import subprocess
from pathlib import Path

import pytest

from temper.cli.completion import places, recipe_fields
from temper.cli.completion_scripts import SCRIPTS
from temper.recipe import load_recipe

ROOT = Path(__file__).parents[2]

ASKED = [
    ("temper tr", {"train"}),
    ("temper sweep sh", {"show"}),
    ("temper sweep --dry", {"--dry-run"}),
    ("temper schema ", {"recipe", "space", "suite", "record"}),
    ("temper train --set objective.class", {"objective.class_weights="}),
    ("temper plan a.yaml --set name=x --set schedule.epochs_per", {"schedule.epochs_per_group="}),
    ("temper train a.yaml --resume --ev", {"--evaluate"}),
    ("temper train --go", set()),
    ("temper job submit --no", {"--no-wait"}),
    ("temper job submit --id a -- crossval r.yaml --keep", {"--keep-test"}),
    ("temper nothing-like-this --dry", set()),
]


@pytest.fixture(scope="module")
def scripts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Shell -> a file with its script."""
    folder = tmp_path_factory.mktemp("completion")
    files = {shell: folder / f"temper.{shell}" for shell in SCRIPTS}
    for shell, file in files.items():
        file.write_text(SCRIPTS[shell](list(places()), recipe_fields()), encoding="utf-8")
    return files


def ask(*command: str, cwd: Path) -> list[str]:
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout.splitlines()


def needs(shell: str) -> str:
    path = shutil.which(shell)
    if path is None:
        pytest.skip(f"no {shell} here")
    return path


@pytest.mark.parametrize(("line", "expected"), ASKED)
def test_bash(scripts: dict[str, Path], tmp_path: Path, line: str, expected: set[str]) -> None:
    words = 'source "$1"; shift; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1))'
    code = f'{words}; _temper; printf "%s\\n" "${{COMPREPLY[@]}}"'
    found = ask(needs("bash"), "-c", code, "-", str(scripts["bash"]), *line.split(" "), cwd=tmp_path)
    assert {one for one in found if one} == expected


@pytest.mark.parametrize(("line", "expected"), [one for one in ASKED if " -- " not in one[0]])
def test_fish(scripts: dict[str, Path], tmp_path: Path, line: str, expected: set[str]) -> None:
    """After ``--`` fish completes no options, whatever a script says."""
    found = ask(needs("fish"), "-c", f"source {scripts['fish']}; complete -C '{line}'", cwd=tmp_path)
    assert {one.split("\t")[0] for one in found} == expected


def test_zsh_reads_it_and_knows_where_it_is(scripts: dict[str, Path], tmp_path: Path) -> None:
    code = (
        'compdef() { :; }; source "$1"; _temper_place job submit --id a -- sweep show; _temper_words schema;'
        "_temper_options 'sweep show'"
    )
    found = ask(needs("zsh"), "-f", "-c", code, "-", str(scripts["zsh"]), cwd=tmp_path)
    assert found[:2] == ["sweep show", "recipe space suite record"]
    assert "--json" in found[2].split()


def test_the_fields_are_those_of_recipes() -> None:
    """Every one of a resolved recipe, and none that it would refuse."""

    def paths(node: object, prefix: str = "") -> set[str]:
        if not isinstance(node, dict):
            return set()
        return {f"{prefix}{name}" for name in node} | {
            path for name, part in node.items() for path in paths(part, f"{prefix}{name}.")
        }

    fields = set(recipe_fields())
    assert paths(load_recipe(ROOT / "jobs/recipes/digits.yaml").resolved()) <= fields
    assert {"schedule.k", "model.adapter.rank", "objective.adversary.awp.gamma"} <= fields
