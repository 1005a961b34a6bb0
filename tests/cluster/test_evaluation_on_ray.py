"""An evaluation shared among actors: the same outcomes, whoever does the work and whoever dies."""

import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray
from torch import nn

import temper
from temper.cli import main
from temper.cluster.evaluate import evaluate_external, evaluate_run
from temper.errors import ModelError, RecipeError, UsageError
from temper.records import RunFolder, read_outcomes, read_record
from temper.run.external_model import ExternalModelSpec

pytestmark = pytest.mark.usefixtures("ray_cluster")

SMALL = {"evaluation.suite": "quick", "evaluation.chunk_size": 16}
ONE_WORKER = {"evaluation.num_workers": 1}


def outcomes(folder: Path) -> str:
    return str(read_outcomes(RunFolder(folder).outcomes).to_pylist())


def test_any_number_of_workers_gives_the_same_even_if_one_is_killed(
    evaluated_run: Path, tmp_path: Path, pids_of: Any
) -> None:
    killed: list[int] = []
    seen: list[tuple[str, int, int]] = []

    def kill_once(what: str, done: int, total: int, robust: float) -> None:
        seen.append((what, done, total))
        if not killed:
            pids = pids_of("ChunkWorker")
            killed.append(pids[0])
            os.kill(pids[0], signal.SIGKILL)

    here = evaluate_run(evaluated_run, SMALL, out=tmp_path / "here")
    there = evaluate_run(
        evaluated_run, SMALL | {"evaluation.num_workers": 2}, out=tmp_path / "there", on_progress=kill_once
    )
    assert len(killed) == 1
    assert sorted(done for _, done, _ in seen) == [16, 32, 48, 64]
    assert outcomes(tmp_path / "there") == outcomes(tmp_path / "here")
    same = ("clean_acc", "robust_acc", "metrics", "per_class", "gates")
    assert all(getattr(here, name) == getattr(there, name) for name in same)
    assert sorted(path.name for path in (tmp_path / "there").iterdir()) == sorted(
        path.name for path in (tmp_path / "here").iterdir()
    ), "no chunk is left behind"


def test_a_further_test_set_of_the_command_line_is_shared_among_actors_too(
    evaluated_run: Path, digits: dict[str, Path], tmp_path: Path
) -> None:
    """The whole command, with the answers of one process on both sets."""
    records = {}
    for name, num_workers in (("here", 0), ("there", 2)):
        settings = [
            "evaluation.max_images=48",
            "evaluation.chunk_size=16",
            f"evaluation.num_workers={num_workers}",
        ]
        words = [word for setting in settings for word in ("--set", setting)]
        words += ["--test", f"site_b={digits['target']}"]
        with pytest.raises(SystemExit, match="0"):
            main(["evaluate", str(evaluated_run), *words, "--out", str(tmp_path / name)])
        records[name] = read_record(tmp_path / name / "record.json")
        assert [one.name for one in records[name].tests] == ["site_b"]
    here, there = records.values()
    assert here.tests[0].num_images == 48
    assert (here.tests, here.clean_acc, here.robust_acc) == (there.tests, there.clean_acc, there.robust_acc)
    assert here.tests[0].robust_acc == here.robust_acc, "they are the same images"
    rows = [str(read_outcomes(tmp_path / name / "outcomes-site_b.parquet").to_pylist()) for name in records]
    assert rows[0] == rows[1]
    assert sorted(path.name for path in (tmp_path / "there").iterdir()) == sorted(
        path.name for path in (tmp_path / "here").iterdir()
    ), "no chunk is left behind"


def test_an_evaluation_that_was_stopped_goes_on_with_other_workers(
    evaluated_run: Path, tmp_path: Path
) -> None:
    def stop(*progress: Any) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        evaluate_run(
            evaluated_run, SMALL | {"evaluation.num_workers": 1}, out=tmp_path / "run", on_progress=stop
        )
    assert len(list((tmp_path / "run/evaluation").glob("*/chunk-*"))) == 1
    seen: list[int] = []
    evaluate_run(
        evaluated_run, SMALL, out=tmp_path / "run", on_progress=lambda _, start, *rest: seen.append(start)
    )
    assert set(seen) == {16, 32, 48}, "the first chunk is not attacked again"
    evaluate_run(evaluated_run, SMALL, out=tmp_path / "undisturbed")
    assert outcomes(tmp_path / "run") == outcomes(tmp_path / "undisturbed")


def test_an_error_of_ours_comes_back_from_a_worker_as_it_is(tmp_path: Path, digits: dict[str, Path]) -> None:
    zoo = tmp_path / "zoo.py"
    document = {
        "name": "m",
        "model": f"{zoo}:build",
        "shards": str(digits["target"]),
        "image_size": 8,
        "threat": {"eps": 0.1},
        "evaluation": {"num_workers": 1, "suite": "quick"},
    }
    zoo.write_text(ONLY_HERE)
    with pytest.raises(RecipeError, match=r"zoo\.py cannot be imported .*a worker"):
        evaluate_external(ExternalModelSpec.model_validate(document), tmp_path / "run")


ONLY_HERE = f"""
import os
if os.getpid() != {os.getpid()}:
    raise RuntimeError("this is a worker")
import torch
def build():
    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(192, 5))
"""


def test_workers_that_open_another_model_make_no_record(digits: dict[str, Path], tmp_path: Path) -> None:
    """Here a function without a seed; or nodes that see different files."""
    build = "from torch import nn\ndef build():\n    return nn.Sequential(nn.Flatten(), nn.Linear(192, 5))\n"
    (tmp_path / "zoo.py").write_text(build)
    spec = ExternalModelSpec.model_validate(
        {
            "name": "zoo",
            "model": f"{tmp_path / 'zoo.py'}:build",
            "shards": digits["target"],
            "image_size": 8,
            "threat": {"norm": "linf", "eps": 0.02},
            "evaluation": {"suite": "quick", "max_images": 20, "chunk_size": 10, "num_workers": 1},
        }
    )
    with pytest.raises(ModelError, match="a worker process opened a different model"):
        evaluate_external(spec, tmp_path / "run")
    assert not (tmp_path / "run/record.json").exists()
    assert not list((tmp_path / "run").rglob("chunk-*.safetensors"))


def test_a_gpu_that_the_cluster_lacks_is_not_waited_for() -> None:
    if ray.cluster_resources().get("GPU"):
        pytest.skip("this machine has a GPU")
    images, labels = np.zeros((8, 3, 8, 8), np.uint8), np.arange(8) % 2
    model = nn.Sequential(nn.Flatten(), nn.Linear(192, 2))
    with pytest.raises(UsageError, match="use_gpu: the cluster has no GPU"):
        temper.evaluate(model, (images, labels), eps=0.1, suite="quick", num_workers=1, use_gpu=True)
