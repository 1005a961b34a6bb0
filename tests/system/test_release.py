"""What is released: wheel and sdist, installed where the repository is not, and the files beside them."""

import ast
import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
import zipfile
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
import yaml

import temper
from temper.records import read_record
from temper.verification import verify_shallow

ROOT = Path(__file__).parents[2]
BROUGHT_BY_OTHERS = {"aiohttp", "eagerpy", "markupsafe", "pydantic-core", "requests"}
"""What Ray, Foolbox, Jinja2 and pydantic cannot be without."""


def run(*command: str | Path, cwd: Path) -> str:
    """Its stdout; with an environment that knows nothing of the repository."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [str(word) for word in command],
        cwd=cwd,
        env={**environment, "PYTHONSAFEPATH": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an sdist, and a wheel that is made of what is in the sdist alone."""
    folder = tmp_path_factory.mktemp("dist")
    build = [sys.executable, "-m", "hatchling", "build", "-d", folder]
    run(*build, "-t", "sdist", cwd=ROOT)
    (archive,) = folder.glob("*.tar.gz")
    with tarfile.open(archive) as file:
        file.extractall(folder, filter="data")
    run(*build, "-t", "wheel", cwd=folder / archive.name.removesuffix(".tar.gz"))
    return folder


@pytest.fixture(scope="module")
def installed(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``bin`` of an environment with the wheel."""
    (wheel,) = built.glob("*.whl")
    return install(wheel, tmp_path_factory.mktemp("environment"))


def bare(folder: Path) -> Path:
    """Python of a new environment without temper; what temper needs (6 GB) is taken from ours."""
    run(sys.executable, "-m", "venv", "--without-pip", folder, cwd=folder)
    places = {name: sysconfig.get_path(name, vars={"base": str(folder)}) for name in ("purelib", "scripts")}
    python = Path(places["scripts"]) / "python"
    # Through a .pth file packages are found, but not the .pth files beside them, such as our editable one.
    (Path(places["purelib"]) / "others.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return python


def install(package: Path, folder: Path) -> Path:
    """``bin`` of a new environment with this package alone."""
    python = bare(folder)
    uv = shutil.which("uv", path=str(Path(sys.executable).parent)) or shutil.which("uv")
    assert uv is not None
    options = ["--quiet", "--offline", "--no-deps", "--no-build-isolation", "--python", python]
    run(uv, "pip", "install", *options, package, cwd=folder)
    return python.parent


def test_the_wheel_holds_what_the_package_reads(built: Path) -> None:
    (wheel,) = built.glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    tracked = subprocess.run(
        ["git", "ls-files", "platform/temper", "jobs/recipes", "jobs/runtime_env.yaml", "search_spaces"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    ).stdout.split()  # fmt: skip
    for name in tracked:
        inside = re.sub(r"^jobs/", "temper/examples/", name.removeprefix("platform/"))
        inside = re.sub(r"^search_spaces", "temper/examples/search_spaces", inside)
        assert inside in names, f"{name} is not in the wheel"
    assert any(name.endswith("licenses/LICENSE") for name in names)
    assert not [name for name in names if not name.startswith(("temper/", "temper-"))]


def test_the_wheel_works_outside_the_repository(installed: Path, built: Path, evaluated_run: Path) -> None:
    place = built / "elsewhere"
    place.mkdir()
    program = installed / "temper"
    code = "import temper, importlib.metadata as m; print(temper.__file__, m.version('temper'))"
    where, version = run(installed / "python", "-c", code, cwd=place).split()
    assert Path(where).is_relative_to(installed.parent)
    assert version == temper.__version__
    assert run(program, "--version", cwd=place).strip() == f"temper {version}"
    assert "temper demo --out demo" in run(program, "demo", "--help", cwd=place)
    # Templates, styles and scripts of pages.
    run(program, "leaderboard", evaluated_run, "--out", "board", cwd=place)
    assert (place / "board/index.html").read_text(encoding="utf-8").count("<table") >= 1
    # Recipes and spaces, by a command that reads them and the digits that scikit-learn has.
    code = (
        "from pathlib import Path; from temper.shipped import example;"
        "from temper.digits import write_digits; from temper.recipe import load_recipe;"
        "from temper.search import load_space;"
        "load_recipe(example('recipes/digits.yaml')); load_space(example('search_spaces/joint.yaml'));"
        "print(len(list(write_digits(Path('images'))[0].rglob('*.png'))))"
    )
    assert run(installed / "python", "-c", code, cwd=place).strip() == "901"
    assert "properties" in json.loads(run(program, "schema", "record", cwd=place))
    run(program, "examples", ".", cwd=place)
    for name in ("jobs/recipes", "search_spaces"):
        assert {path.name for path in (place / name).iterdir()} == {
            path.name for path in (ROOT / name).iterdir()
        }


@pytest.mark.long
def test_a_job_is_sent_by_an_installed_wheel(
    installed: Path, digits: dict[str, Path], start_head: Any, tmp_path: Path
) -> None:
    """From a folder with nothing but the examples, to a cluster whose Python has no temper."""
    (tmp_path / "cluster").mkdir()
    start_head(python=bare(tmp_path / "cluster"))
    place, program, out = tmp_path / "empty", installed / "temper", tmp_path / "shared/run"
    place.mkdir()
    run(program, "examples", ".", cwd=place)
    assert (place / "jobs/runtime_env.yaml").read_text() == (ROOT / "jobs/runtime_env.yaml").read_text()
    submit = [program, "job", "submit", "--id", "wheel", "--json", "--", "train", "jobs/recipes/tiny.yaml"]
    for task in ("target", "source"):
        submit += ["--set", f"data.{task}={digits[task]}"]
    said = run(*submit, "--set", "epochs=2", "--out", out, cwd=place)
    assert json.loads(said)["status"] == "SUCCEEDED", said
    record = read_record(out / "record.json")
    assert record.status == "ok"
    assert record.recipe["epochs"] == 2
    assert record.environment["packages"]["temper"] == temper.__version__
    assert verify_shallow(out).passed


def test_the_sdist_can_be_installed(built: Path, tmp_path: Path) -> None:
    (archive,) = built.glob("*.tar.gz")
    program = install(archive, tmp_path) / "temper"
    assert run(program, "--version", cwd=tmp_path).strip() == f"temper {temper.__version__}"


def test_what_is_imported_is_what_installing_brings() -> None:
    """The environments above borrow our packages, so one that is not declared would not be missed there."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = [
        one
        for name in ("cluster", "heic", "medical", "onnx", "peft", "timm")
        for one in project["optional-dependencies"][name]
    ]
    declared = {canonical(re.split(r"[\[<>=]", one)[0]) for one in [*project["dependencies"], *extras]}
    known, homes = declared | BROUGHT_BY_OTHERS, metadata.packages_distributions()
    unknown = {
        (path.name, name)
        for path in sorted((ROOT / "platform/temper").rglob("*.py"))
        for name in imported_by(path) - sys.stdlib_module_names - {"temper"}
        if not known & {canonical(home) for home in homes.get(name, [name])}
    }
    assert not unknown, "imported, but brought by no dependency in pyproject.toml"


def imported_by(path: Path) -> set[str]:
    """The first parts of the names of modules that a file imports, at its top or late."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names.add((node.module or "").partition(".")[0])
    return names


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def test_the_sdist_holds_what_a_packager_needs(built: Path) -> None:
    (archive,) = built.glob("*.tar.gz")
    with tarfile.open(archive) as file:
        names = {name.partition("/")[2] for name in file.getnames()}
    needed = {"pyproject.toml", "LICENSE", "README.md", "CHANGELOG.md", "CITATION.cff", "SECURITY.md"}
    assert needed <= names
    assert not [name for name in names if name.startswith((".venv", "runs/", "demo/", "site/"))]


def test_the_citation_is_whole_and_of_this_version() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    # What Citation File Format 1.2.0 requires.
    assert {"cff-version", "message", "title", "authors"} <= set(citation)
    assert citation["cff-version"] == "1.2.0"
    assert citation["authors"]
    assert citation["license"] == "Apache-2.0"
    assert str(citation["version"]) == re.sub(r"\.dev\d+$", "", temper.__version__)


@pytest.mark.parametrize("page", ["README.md", "docs/tutorial.md", "docs/cluster.md"])
def test_pages_name_the_wheel_of_this_version(page: str, built: Path) -> None:
    named = set(re.findall(r"temper-[\w.-]+\.whl", (ROOT / page).read_text(encoding="utf-8")))
    assert named == {path.name for path in built.glob("*.whl")}


def test_the_changelog_has_a_place_for_this_version() -> None:
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    headings = re.findall(r"^## \[?([^\]\s]+)", text, re.MULTILINE)
    released = [heading for heading in headings if heading.lower() != "unreleased"]
    assert headings[0].lower() == "unreleased" or headings == released
    assert ".dev" in temper.__version__ or released[0] == temper.__version__
