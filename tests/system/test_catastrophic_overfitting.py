"""One-step training at 16/255 loses its robustness, and the guard sees it: whole runs on the embedded digits.

To faint zeros and eights, 0.174 of the contrast that there is, 16/255 is as 0.36 to full contrast: PGD
training stays robust there, and FGSM training finds that it can fool its own single step instead.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from temper.cluster.launch import launch
from temper.data import write_shards
from temper.recipe import Recipe, build_recipe
from temper.training import read_state

EPS = "16/255"
CONTRAST = 0.174
ROBUST = "val/target/robust_acc"


@pytest.fixture(scope="module")
def faint_digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shards of 355 faint zeros and eights of 8 px."""
    folder = tmp_path_factory.mktemp("faint")
    digits = load_digits()
    for index, (pixels, label) in enumerate(zip(digits.images, digits.target, strict=True)):
        if label in (0, 8):
            path = folder / "images" / str(label) / f"{index:04d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.round(pixels / 16 * CONTRAST * 255).astype(np.uint8)).save(path)
    write_shards(folder / "images", folder / "shards", val_frac=0.25, test_frac=0.1)
    return folder / "shards"


@pytest.fixture(scope="module")
def robust_start(faint_digits: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of PGD training, its eps rising to 16/255."""
    run = tmp_path_factory.mktemp("runs") / "pgd"
    ramp = {"kind": "ramp", "start": 0.5, "ramp_frac": 0.7}
    adversary = {"kind": "pgd", "eps": EPS, "steps": 5, "eps_schedule": ramp}
    launch(recipe(faint_digits, adversary, validation={"every_epochs": 4}), run)
    return run


def recipe(shards: Path, adversary: dict[str, Any], **fields: Any) -> Recipe:
    data = {"target": str(shards), "image_size": 8, "batch_size": 32, "augment": None}
    document = {
        "name": "collapse",
        "seed": 1,
        "epochs": 30,
        "threat": {"norm": "linf", "eps": EPS},
        "data": data,
        "model": {"backbone": "resnet8"},
        "objective": {"adversary": adversary},
        "optim": {"lr": 0.1, "lr_schedule": "constant"},
        "tracking": {"wandb": False},
    }
    return build_recipe({**document, **fields})


def fast(shards: Path, start: Path, guard: dict[str, Any] | None) -> Recipe:
    """Single steps of eps from the image itself, at a rate that rises over the first nine epochs."""
    adversary = {"kind": "fast", "eps": EPS, "random_start": False, "guard": guard}
    optim = {"lr": 0.1, "lr_schedule": "constant", "warmup_frac": 0.3}
    return recipe(
        shards, adversary, model={"backbone": "resnet8", "weights": str(start), "head": "start"}, optim=optim
    )


def rows_of(run: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.long
def test_fast_training_collapses_without_the_guard_and_is_caught_with_it(
    faint_digits: Path, robust_start: Path, tmp_path: Path
) -> None:
    start = read_state(robust_start / "last").best_metrics[ROBUST]
    launch(fast(faint_digits, robust_start, None), tmp_path / "unguarded")
    unguarded = rows_of(tmp_path / "unguarded")
    last = unguarded[-5:]
    collapsed = sum(row[ROBUST] for row in last) / len(last)
    assert start > 0.6
    assert collapsed < start - 0.3
    assert min(row[ROBUST] for row in unguarded) < 0.35
    # The network has not got worse: it answers clean images, and its own single step, better than before.
    assert sum(row["val/target/clean_acc"] for row in last) / len(last) > 0.95
    one_step = sum(row["train/loss"] for row in last) / len(last)
    assert one_step < 0.6 * rows_of(robust_start)[-1]["train/loss"]

    state = launch(fast(faint_digits, robust_start, {}), tmp_path / "guarded")
    guarded = rows_of(tmp_path / "guarded")
    assert state.stopped is not None
    assert f"catastrophic overfitting in epoch {len(guarded)}" in state.stopped
    assert len(guarded) < len(unguarded) // 2
    # Up to the fall the two are one run.
    assert [row["train/loss"] for row in guarded] == [row["train/loss"] for row in unguarded[: len(guarded)]]
    kept = [row[ROBUST] for row in guarded[:-1]]
    peak = max(row[ROBUST] for row in unguarded)
    assert state.best_metrics[ROBUST] == max(kept) > peak - 0.05
    assert kept[-1] > min(row[ROBUST] for row in unguarded) + 0.2
