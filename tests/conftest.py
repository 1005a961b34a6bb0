"""What all tests share: a tiny task, real image sets where they are present, and one Ray cluster."""

import functools
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch

from temper.data import write_shards
from temper.digits import write_digits
from temper.recipe import Recipe, load_recipe

ROOT = Path(__file__).parents[1]
torch.set_num_threads(1)


@functools.cache
def group_of(path: str) -> str | None:
    """What keeps the tests of a file together in one worker of pytest-xdist; ``None`` if nothing does.

    There must be one Ray cluster, so whatever may start Ray is one group; a fixture of a module is made once.
    Files are judged by their text, for the process that shares out the tests knows no more than their names.
    """
    text = (ROOT / path).read_text(encoding="utf-8")
    if path.startswith("tests/cluster/") or "ray_cluster" in text:
        return "ray"
    return path if 'scope="module"' in text else None


def path_of(nodeid: str) -> str:
    return nodeid.partition("::")[0]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Ray's group first, for it takes longest, then other groups, then runs: short tests fill up the end."""

    def rank(item: pytest.Item) -> int:
        group = group_of(path_of(item.nodeid))
        if group is not None:
            return 0 if group == "ray" else 1
        return 2 if "tiny_recipe" in getattr(item, "fixturenames", []) else 3

    items.sort(key=rank)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """One group or one ungrouped test after the other, in our order, to whichever worker is free.

    xdist 3.8.0 loses its own groups with pytest 9.2, without a word (pytest-xdist issue 1386).
    """
    from xdist.scheduler import LoadScopeScheduling

    class Groups(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return group_of(path_of(nodeid)) or nodeid

    config.option.loadscopereorder = False
    return Groups(config, log)


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
def vary(evaluated_run: Path) -> Any:
    """Writes the run's record anew into ``folder/place``, with outcomes of its own.

    ``vary(folder, place, robust, correct=None, **changes)``: the answers are (N,) bool, over N images whose
    labels go round the classes; what follows from them in the record is made to fit.
    """
    from temper.records import FileRecord, read_record, sha256_of, write_outcomes
    from temper.statistics import wilson

    base = read_record(evaluated_run / "record.json")
    num_classes = len(base.data.classes)

    def write(folder: Path, place: str, robust: Any, correct: Any = None, **changes: Any) -> Path:
        robust = np.asarray(robust, bool)
        correct = np.ones(len(robust), bool) if correct is None else np.asarray(correct, bool)
        labels = np.arange(len(robust)) % num_classes
        columns = {"row": np.arange(len(robust)), "label": labels, "correct": correct, "robust": robust}
        path = folder / place / "record.json"
        write_outcomes(path.with_name("outcomes.parquet"), pa.table(columns))
        clean_acc, robust_acc = (wilson(int(answers.sum()), len(robust)) for answers in (correct, robust))
        outcomes = FileRecord(path="outcomes.parquet", sha256=sha256_of(path.with_name("outcomes.parquet")))
        fitting = {
            "name": path.parent.name,
            "clean_acc": clean_acc,
            "robust_acc": robust_acc,
            "data": base.data.model_copy(update={"num_images": len(robust)}),
            "per_class": {
                one: {
                    "clean_acc": float(correct[labels == label].mean()),
                    "robust_acc": float(robust[labels == label].mean()),
                }
                for label, one in enumerate(base.data.classes)
            },
            "files": {**base.files, "outcomes": outcomes},
        }
        path.write_text(base.model_copy(update={**fitting, **changes}).model_dump_json())
        return path

    return write


@pytest.fixture(scope="session")
def s3_server() -> Iterator[str]:
    """The endpoint of a server that speaks S3's protocol."""
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)  # a line for each request, else
    moto = ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
    moto.start()
    host, port = moto.get_host_and_port()
    yield f"http://{host}:{port}"
    moto.stop()


@pytest.fixture(scope="session")
def ray_cluster(s3_server: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """One local cluster for the whole session, ended with it; its processes know the server and its keys."""
    import ray

    from temper.cluster.runtime import start_ray

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", s3_server)
        patch.setenv("AWS_ACCESS_KEY_ID", "an-invented-key")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "an-invented-secret-key")
        patch.setenv("AWS_REGION", "us-east-1")
        patch.setenv("TEMPER_CACHE", str(tmp_path_factory.mktemp("cache-of-the-cluster")))
        start_ray()
    yield
    ray.shutdown()
