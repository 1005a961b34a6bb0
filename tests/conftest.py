"""What all tests share: a tiny task, real image sets where they are present, and one Ray cluster."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from temper.data import write_shards
from temper.digits import write_digits
from temper.recipe import Recipe, load_recipe

ROOT = Path(__file__).parents[1]
torch.set_num_threads(1)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keep what shares something dear in one worker of pytest-xdist; what takes long comes first.

    Groups go whole to one worker: Ray's first, of which there must be one, then others that share a fixture.
    All else goes test by test to whichever worker is free: runs first, so that short tests fill up the end.
    """
    groups = {item: _group(item) for item in items}
    for item, group in groups.items():
        if group is not None:
            item.add_marker(pytest.mark.xdist_group(group))
    order = {group: rank for rank, group in enumerate(dict.fromkeys(["ray", *groups.values()]))}

    def rank(item: pytest.Item) -> int:
        if groups[item] is not None:
            return order[groups[item]]
        return len(order) + ("tiny_recipe" not in _fixtures(item))

    items.sort(key=rank)


def _fixtures(item: pytest.Item) -> dict[str, Any]:
    """Definitions of the fixtures that a test uses, however indirectly."""
    return item._fixtureinfo.name2fixturedefs if isinstance(item, pytest.Function) else {}


def _group(item: pytest.Item) -> str | None:
    fixtures = _fixtures(item)
    if "ray_cluster" in fixtures or item.path.is_relative_to(ROOT / "tests/cluster"):
        return "ray"
    if "evaluated_run" in fixtures:
        return "evaluated_run"
    if any(definitions[-1].scope == "module" for definitions in fixtures.values()):
        return item.path.stem
    return None


@pytest.fixture(scope="session", autouse=True)
def _own_environment() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith(("WANDB_", "RAY_"))]:
            patch.delenv(name)
        patch.setenv("WANDB_MODE", "offline")
        yield


@pytest.fixture(scope="session")
def digits(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Shards of the two digit tasks, and their class folders."""
    folder = tmp_path_factory.mktemp("digits")
    source, target = write_digits(folder / "images")
    shards = {"source": folder / "shards/source", "target": folder / "shards/target"}
    write_shards(source, shards["source"])
    write_shards(target, shards["target"])
    return {**shards, "images": target}


@pytest.fixture(scope="session")
def tiny(digits: dict[str, Path]) -> dict[str, Any]:
    """Overrides that point the tiny recipe at the digits."""
    return {"data.target": str(digits["target"]), "data.source": str(digits["source"])}


@pytest.fixture(scope="session")
def tiny_recipe(tiny: dict[str, Any]) -> Any:
    """Builds the tiny recipe with overrides."""

    def build(**overrides: Any) -> Recipe:
        dotted = {name.replace("__", "."): value for name, value in overrides.items()}
        return load_recipe(ROOT / "jobs/recipes/tiny.yaml", {**tiny, **dotted})

    return build


@pytest.fixture(scope="session")
def real_images() -> Any:
    """A folder of real images by name; skips where it is absent."""
    base = Path(os.environ.get("TEMPER_DATA", ROOT.parent / "shared" / "data"))

    def find(name: str) -> Path:
        if not (base / name).is_dir():
            pytest.skip(f"no {name} under TEMPER_DATA ({base})")
        return base / name

    return find


@pytest.fixture(scope="session")
def evaluated_run(tiny_recipe: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of the tiny recipe with its record; not to be changed."""
    from temper.cluster.evaluate import evaluate_run
    from temper.cluster.launch import launch

    folder = tmp_path_factory.mktemp("runs") / "tiny"
    launch(tiny_recipe(), folder)
    evaluate_run(folder)
    return folder


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator[None]:
    """One local cluster for the whole session, ended with it."""
    import ray

    from temper.cluster.runtime import start_ray

    start_ray()
    yield
    ray.shutdown()
