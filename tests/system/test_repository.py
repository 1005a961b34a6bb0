"""Promises of the repository itself: layout, examples, links."""

import ast
import re
import subprocess
import sys
import tomllib
import typing
from pathlib import Path
from typing import Any

import pytest
import yaml

import temper
from temper.hardening import AnyAdversary
from temper.hardening.eps_schedules import AnyEpsSchedule
from temper.models.adapters import AnyAdapter
from temper.objective.alpha_schedules import AnyAlphaSchedule
from temper.objective.source_terms import AnySourceTerm
from temper.recipe import build_recipe, load_recipe
from temper.schedules import AnySchedule
from temper.search import build_trials, load_space
from temper.spec import read_yaml

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("**/*.md")])
SPACES = sorted((ROOT / "search_spaces").glob("*.yaml"))
RECIPES = sorted((ROOT / "jobs/recipes").glob("*.yaml"))
MODULES = sorted((ROOT / "platform").rglob("*.py"))
NAVIGATION = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))["nav"]
MADE = {ROOT / "docs" / name for name in re.findall(r"[\w./-]+\.md", yaml.safe_dump(NAVIGATION))}
"""Pages of the site, some of them made from the code; `make docs` fails where one is not."""


def test_the_standard_library_s_platform_stays_reachable() -> None:
    assert not (ROOT / "platform/__init__.py").exists()
    code = "import platform, temper; assert platform.system(); assert temper.__version__"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


def test_types_of_what_is_imported_late_are_declared() -> None:
    """``temper.train`` and the others come from ``__getattr__``; type checkers and editors read the stub."""
    stub = (ROOT / "platform/temper/__init__.pyi").read_text(encoding="utf-8")
    declared = re.findall(r"import (\w+) as \1$", stub, re.MULTILINE)
    assert sorted([*declared, "__version__"]) == sorted(temper.__all__)
    assert all(callable(getattr(temper, name)) for name in declared)


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.name)
def test_every_recipe_loads_and_names_its_command(path: Path) -> None:
    load_recipe(path)
    assert f"temper train jobs/recipes/{path.name}" in path.read_text(encoding="utf-8")


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.name)
def test_no_recipe_counts_on_more_than_one_idle_core(path: Path) -> None:
    """Two threads on a busy machine wait for each other: a pass took 15 times as long."""
    recipe = load_recipe(path)
    assert recipe.workers.cpus_per_worker == 1
    assert recipe.workers.max_workers <= 1
    assert recipe.evaluation.num_workers <= 1


@pytest.mark.parametrize("path", SPACES, ids=lambda path: path.name)
def test_no_search_space_counts_on_more_than_one_idle_core(path: Path) -> None:
    assert "cpus_per_worker" not in path.read_text(encoding="utf-8")


@pytest.mark.parametrize("path", SPACES, ids=lambda path: path.name)
def test_every_search_space_makes_trials_of_the_digits_recipe(path: Path) -> None:
    document = read_yaml(ROOT / "jobs/recipes/digits.yaml")
    space = load_space(path)
    trials = build_trials(space, document, str(path))
    assert len({trial.recipe.hash for trial in trials}) == len(trials) >= 3
    if space.baseline is not None:
        build_recipe(document, space.baseline)
    assert f"search_spaces/{path.name}" in path.read_text(encoding="utf-8")


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_links_lead_somewhere(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#\s]+)", text):
        if not target.startswith(("http:", "https:", "mailto:")):
            file = (page.parent / target).resolve()
            assert file.exists() or file in MADE, f"{page.name}: {target}"


def test_every_page_is_in_the_navigation() -> None:
    assert {page for page in PAGES if page.is_relative_to(ROOT / "docs")} <= MADE


def test_readme_is_short_and_names_files_that_exist() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert len(text.splitlines()) < 200
    for name in re.findall(r"(?:jobs|search_spaces)/[\w/.-]+\.(?:yaml|py)", text):
        assert (ROOT / name).exists(), name


def test_the_layers_that_contributors_read_are_those_that_are_checked() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    layers = settings["tool"]["importlinter"]["contracts"][0]["layers"]
    fence = re.search(r"```text\n(.*?)```", (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8"), re.DOTALL)
    assert fence is not None
    assert [line.strip() for line in fence[1].strip().splitlines()] == layers


def test_no_module_is_longer_than_250_lines() -> None:
    lengths = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in MODULES}
    assert not {path.name: length for path, length in lengths.items() if length > 250}


def test_no_function_is_longer_than_40_lines() -> None:
    long = {
        f"{path.relative_to(ROOT)}: {function.name}": length
        for path in MODULES
        for function in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef)
        and (length := num_lines(function)) > 40
    }
    assert not long


def num_lines(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """From ``def`` to the last line, without the docstring."""
    assert function.end_lineno is not None
    docstring = ast.get_docstring(function, clean=False)
    return function.end_lineno - function.lineno + 1 - (0 if docstring is None else docstring.count("\n") + 1)


def test_the_cluster_file_is_one_that_ray_accepts() -> None:
    from ray.autoscaler._private.util import prepare_config, validate_config

    validate_config(prepare_config(yaml.safe_load((ROOT / "cluster.yaml").read_text(encoding="utf-8"))))


UNIONS = (AnyAdversary, AnySchedule, AnySourceTerm, AnyAlphaSchedule, AnyEpsSchedule, AnyAdapter)


@pytest.mark.parametrize("union", UNIONS, ids=str)
def test_every_kind_that_a_recipe_may_name_is_documented(union: Any) -> None:
    text = (ROOT / "docs/methods.md").read_text(encoding="utf-8")
    for member in typing.get_args(typing.get_args(union)[0]):
        assert f"`{member.model_fields['kind'].default}`" in text, member
