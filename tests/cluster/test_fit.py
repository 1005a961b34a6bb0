"""`temper fit`, whole, on a few images: from class folders to the page, and again from its files."""

import json
from pathlib import Path
from typing import Any

import pytest

from temper.cluster.sweep import Watch
from temper.digits import write_digits
from temper.errors import CheckpointError, Interrupted, TrainingError
from temper.fitting import FitPlan, FitRequest, FitResult, FitWatch, Look, resume_fit, run_fit
from temper.records import read_ledger, read_record
from temper.search import BASELINE

# Its plan follows from times that are measured: on a busy machine a training of a minute may be ended early.
pytestmark = [pytest.mark.usefixtures("ray_cluster"), pytest.mark.long]


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sixty digits, fewer of one class than of the others."""
    folder = tmp_path_factory.mktemp("fit")
    _, target = write_digits(folder / "images")
    for name in target.iterdir():
        for path in sorted(name.iterdir())[8 if name.name == "9" else 13 :]:
            path.unlink()
    return target


@pytest.fixture(scope="module")
def planned() -> list[tuple[Look, FitPlan]]:
    return []


@pytest.fixture(scope="module")
def stages() -> list[str]:
    return []


@pytest.fixture(scope="module")
def fitted(
    images: Path, planned: list[tuple[Look, FitPlan]], stages: list[str], ray_cluster: None
) -> FitResult:
    request = FitRequest(images=str(images), eps=0.1, minutes=1, backbone="resnet8", weights="random")
    watch = FitWatch(Watch(on_stage=stages.append), on_plan=lambda look, plan: planned.append((look, plan)))
    return run_fit(request, images.parents[1] / "fit", watch=watch)


def test_a_fit_ends_in_two_models_a_page_and_words(
    fitted: FitResult, planned: list[tuple[Look, FitPlan]], stages: list[str]
) -> None:
    ((look, plan),) = planned
    assert look.is_imbalanced
    assert plan == fitted.plan
    assert any("starts from random weights" in stage for stage in stages)
    assert stages.index(f"running {1 + plan.num_hardened} trials") > 0
    assert [model.kind for model in fitted.outcome.models] == ["plain", "hardened"]
    plain, hardened = fitted.outcome.models
    assert plain.record.recipe["objective"]["adversary"] is None
    assert hardened.record.recipe["objective"]["adversary"]["eps"] == 0.1
    assert {model.record.threat.label for model in (plain, hardened)} == {"Linf 0.1 grey"}
    assert look.channels == "grey"
    assert hardened.record.recipe["data"]["sampling"] == "balanced"
    assert hardened.record.recipe["epochs"] == plan.hardened_epochs
    assert plain.record.recipe["epochs"] == plan.plain_epochs
    assert hardened.record == read_record(hardened.run / "record.json")
    rows = read_ledger(fitted.path / "sweep/ledger.jsonl")
    assert sorted(row.trial for row in rows)[-1] == BASELINE
    assert fitted.page.exists()
    assert fitted.report.exists()
    assert any("temper predict" in step for step in fitted.outcome.next_steps)
    assert any("'9' has" in step for step in fitted.outcome.next_steps)
    assert [line.split()[1] for line in fitted.outcome.commands] == [
        "shards",
        "sweep",
        "train",
        "train",
        "leaderboard",
    ]


def test_a_finished_fit_is_read_and_not_done_again(fitted: FitResult, images: Path) -> None:
    again = resume_fit(fitted.path)
    assert again.sweep == fitted.sweep
    assert again.plan == fitted.plan
    assert [one.record for one in again.outcome.models] == [one.record for one in fitted.outcome.models]
    with pytest.raises(CheckpointError, match="holds another fit"):
        run_fit(FitRequest(images=str(images), minutes=9), fitted.path)


def test_a_machine_that_becomes_slower_still_ends_in_a_page(
    images: Path, tmp_path: Path, ray_cluster: None
) -> None:
    request = FitRequest(images=str(images), eps=0.1, minutes=1, backbone="resnet8", weights="random")
    out, stages = tmp_path / "fit", list[str]()

    def stop(look: Look, plan: FitPlan) -> None:
        raise Interrupted("after the plan")

    with pytest.raises(Interrupted):
        run_fit(request, out, watch=FitWatch(on_plan=stop))
    plan = json.loads((out / "plan.json").read_text())
    (out / "plan.json").write_text(json.dumps({**plan, "max_sweep_s": 1.0}))
    fit = run_fit(request, out, watch=FitWatch(Watch(on_stage=stages.append)))
    (late,) = (stage for stage in stages if stage.startswith("time is up after "))
    assert late.endswith(f"run the rest with `temper fit --resume {out}`")
    assert any("1 minutes were too short for a hardened model: training on" in stage for stage in stages)
    assert "hardened" in [model.kind for model in fit.outcome.models]
    assert fit.page.exists()


def test_too_short_a_time_is_refused_before_any_training(images: Path, tmp_path: Path) -> None:
    request = FitRequest(images=str(images), minutes=0.05, backbone="resnet8", weights="random")
    with pytest.raises(
        TrainingError, match=r"too short for one epoch of resnet8 at 8 px .* minutes are need"
    ):
        run_fit(request, tmp_path / "fit")
    assert not (tmp_path / "fit/sweep").exists()
    plan: dict[str, Any] = json.loads((tmp_path / "fit/fit.json").read_text())
    assert plan["minutes"] == 0.05
