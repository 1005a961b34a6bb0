"""What a run may start from, and what can be made of it: heads of a start, one logit, merged adapters."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from temper.cluster.evaluate import evaluate_run
from temper.cluster.launch import launch, plan_run
from temper.data import write_shards
from temper.deployment import calibrate
from temper.deployment.classifier import Classifier
from temper.errors import CheckpointError, ModelError, RecipeError, ShardError
from temper.models import build_model
from temper.recipe import build_recipe
from temper.records import read_outcomes
from temper.run.merge import merge_run
from temper.run.open_data import open_data
from temper.run.verify import check_images
from temper.run.verify.load import reopen
from temper.training import Worker, read_state
from temper.training.compute import Compute, apply_compute, choose_compute
from temper.verification import read_evidence

LWF = {"kind": "lwf"}
FEW = {"data__shots_per_class": 30, "evaluation__max_images": 16}


@pytest.fixture(scope="module")
def source_run(tiny_recipe: Any, digits: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose target is the digits' source task."""
    folder = tmp_path_factory.mktemp("starts") / "source"
    changes = {"data__target": str(digits["source"]), "data__source": None, "objective__alpha": 0.0}
    launch(tiny_recipe(**changes, epochs=1), folder)
    return folder


def test_lwf_needs_a_start_with_a_head_and_no_source_images(
    tiny_recipe: Any, source_run: Path, tmp_path: Path
) -> None:
    changes = {"data__source": None, "objective__source_term": LWF, "objective__alpha": 1.0}
    recipe = tiny_recipe(**changes, **FEW, model__weights=str(source_run), epochs=1)
    state = launch(recipe, tmp_path / "run")
    assert state.classes == {"target": ["5", "6", "7", "8", "9"], "source": ["0", "1", "2", "3", "4"]}
    assert set(state.fingerprints) == {"target"}
    record = evaluate_run(tmp_path / "run")
    assert record.source is None
    body = build_model(recipe.model, state.classes, image_size=8, seed=0).backbone.state_dict()
    torch.save(body, tmp_path / "headless.pth")
    with pytest.raises(RecipeError, match=r"lwf needs the start's own head, and model.weights .* has none"):
        open_data(tiny_recipe(**changes, model__weights=str(tmp_path / "headless.pth")))


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"objective.source_term": LWF}, "lwf needs a start: model.weights or pretrain"),
        (
            {"objective.source_term": {"kind": "l2sp"}, "pretrain": {"epochs": 1}},
            r"l2sp replaces weight decay; set optim.weight_decay: 0",
        ),
        (
            {"objective.alpha": 0.0, "objective.adversary": {"kind": "pgd", "eps": 0.1, "tasks": "both"}},
            "adversary.tasks: both needs source_term replay and alpha > 0",
        ),
        (
            {"objective.adversary": {"kind": "mart", "eps": 0.1}, "data.mixing": {}},
            "mart needs one class per image; set data.mixing: null",
        ),
        (
            {"data.sampling": "balanced", "data.resident": False},
            "data.sampling: balanced needs data.resident",
        ),
        ({"model.weights": "https://example.org/w.pth"}, "weights from a URL need sha256"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_contradictions_are_named_before_anything_starts(
    tiny_recipe: Any, changes: dict[str, Any], problem: str
) -> None:
    with pytest.raises(RecipeError, match=problem):
        build_recipe(tiny_recipe().resolved(), changes)


def test_a_plan_finds_wrong_weights_and_says_what_a_run_may_take(
    tiny_recipe: Any, source_run: Path, tmp_path: Path
) -> None:
    with pytest.raises(ModelError, match="nowhere: no such file or run folder"):
        plan_run(tiny_recipe(model__weights=str(tmp_path / "nowhere")))
    other = build_model(
        tiny_recipe(model__backbone="resnet20").model, {"target": ["a"]}, image_size=8, seed=0
    )
    torch.save(other.backbone.state_dict(), tmp_path / "resnet20.pth")
    with pytest.raises(
        ModelError, match=r"weights of another backbone.*they fit resnet20: set model\.backbone"
    ):
        plan_run(tiny_recipe(model__weights=str(tmp_path / "resnet20.pth")))
    with pytest.raises(ModelError, match=r"another backbone.*that run has resnet8: set model\.backbone$"):
        plan_run(tiny_recipe(model={"backbone": "resnet20", "weights": str(source_run)}))
    _, one = plan_run(tiny_recipe(epochs=1))
    _, three = plan_run(tiny_recipe(epochs=3))
    assert three.num_passes == pytest.approx(3 * one.num_passes)
    assert one.compute_s == pytest.approx(one.num_passes * one.seconds_per_pass)
    _, larger = plan_run(tiny_recipe(data__batch_size=256))
    weights = (
        4
        * 3
        * sum(
            tensor.numel()
            for tensor in build_model(
                tiny_recipe().model, {"target": list("abcde"), "source": list("abcde")}, image_size=8, seed=0
            ).parameters()
        )
    )
    kept = one.memory_bytes - weights
    assert kept > 64 * 16 * 8 * 8 * 4, "the first layer's answer alone, of 64 images"
    assert larger.memory_bytes - weights == pytest.approx(4 * kept, rel=0.01)


def test_one_logit_for_two_classes(tiny_recipe: Any, digits: dict[str, Path], tmp_path: Path) -> None:
    for name in ("5", "6"):
        shutil.copytree(digits["images"] / name, tmp_path / "images" / name)
    write_shards(tmp_path / "images", tmp_path / "shards")
    binary = {"data__target": str(tmp_path / "shards"), "model__is_binary": True, "epochs": 3}
    launch(tiny_recipe(**binary), tmp_path / "run")
    weights = load_file(tmp_path / "run/checkpoint/model.safetensors")
    assert weights["heads.target.linear.weight"].shape == (1, 64)
    record = evaluate_run(tmp_path / "run")
    assert record.clean_acc.value > 0.8
    assert record.auroc is not None
    with pytest.raises(ModelError, match=r"model.is_binary: the target has 5 classes, not 2; set false"):
        plan_run(tiny_recipe(model__is_binary=True))


@pytest.mark.parametrize(
    ("backbone", "adapter"),
    [
        ("resnet8", {"kind": "lora", "rank": 4}),
        ("resnet8", {"kind": "adalora", "init_rank": 4, "target_rank": 2}),
        ("resnet8", {"kind": "norm_bias"}),
    ],
    ids=str,
)
def test_a_merged_run_answers_as_the_adapted_one(
    tiny_recipe: Any, source_run: Path, tmp_path: Path, backbone: str, adapter: dict[str, Any]
) -> None:
    model = {"backbone": backbone, "adapter": adapter, "weights": str(source_run)}
    few = {"data__shots_per_class": 30, "data__batch_size": 32, "evaluation__max_images": 32}
    launch(tiny_recipe(**few, model=model, optim__lr=0.01), tmp_path / "run")
    before = evaluate_run(tmp_path / "run")
    assert before.model.adapter is not None
    assert before.model.num_trained_params < before.model.num_params
    merged = merge_run(tmp_path / "run", tmp_path / "merged")
    assert merged.largest_change < 1e-4
    assert merged.num_params <= merged.num_params_before
    after = evaluate_run(tmp_path / "merged")
    assert (after.model.adapter, after.model.adapter_ranks) == (None, {})
    assert after.clean_acc == before.clean_acc
    one, other = (read_outcomes(tmp_path / name / "outcomes.parquet") for name in ("run", "merged"))
    assert one["correct"].equals(other["correct"]), "image by image"
    if adapter["kind"] == "adalora":
        ranks = before.model.adapter_ranks
        assert len(ranks) > 4
        assert sum(ranks.values()) <= 4 * len(ranks)
    with pytest.raises(CheckpointError, match="already exists"):
        merge_run(tmp_path / "run", tmp_path / "merged")
    with pytest.raises(CheckpointError, match="this run has no adapter"):
        merge_run(tmp_path / "merged", tmp_path / "again")
    start = {"model__backbone": backbone, "model__weights": str(tmp_path / "merged")}
    follower = tiny_recipe(**FEW, **start, epochs=1)
    assert launch(follower, tmp_path / "follower").is_finished


def test_an_adapter_that_cannot_be_folded_says_why(tiny_recipe: Any, tmp_path: Path) -> None:
    launch(tiny_recipe(**FEW, model__adapter={"kind": "bottleneck"}, epochs=1), tmp_path / "run")
    with pytest.raises(ModelError, match="bottleneck"):
        merge_run(tmp_path / "run", tmp_path / "merged")
    assert not (tmp_path / "merged").exists()


def test_what_is_auto_is_measured_once_and_kept(tiny_recipe: Any, tmp_path: Path) -> None:
    recipe = tiny_recipe(compute__channels_last="auto", epochs=1)
    model = build_model(recipe.model, {"target": ["a", "b"]}, image_size=8, seed=0)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    choice = choose_compute(recipe, model, Worker())
    assert (choice.precision, choice.compile) == ("fp32", False)  # never bf16 by default on a CPU
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    state = launch(recipe, tmp_path / "run")
    assert state.compute is not None
    assert read_state(tmp_path / "run/last").compute == state.compute


def test_bf16_answers_nearly_alike_and_in_float32(model: Any, batch: Any) -> None:
    images, _ = batch
    expected = model(images)
    apply_compute(Compute(precision="bf16", compile=False, channels_last=False), model)
    found = model(images)
    assert found.dtype == torch.float32
    assert not torch.equal(found, expected)
    assert torch.allclose(found, expected, atol=0.1)


@pytest.mark.long
@pytest.mark.skipif(shutil.which("c++") is None, reason="no compiler here")
@pytest.mark.filterwarnings("ignore")  # of torch's compiler, about itself
def test_a_compiled_backbone_trains_as_any_other(tiny_recipe: Any, tmp_path: Path) -> None:
    """Under attack as well, whose twin is compiled too. Half a minute of compiling."""
    overrides = {"objective__adversary": {"kind": "pgd", "eps": 0.05, "steps": 3}, "epochs": 2}
    losses = []
    for is_compiled in (False, True):
        run = tmp_path / str(is_compiled)
        launch(tiny_recipe(compute__compile=is_compiled, **overrides), run)
        rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
        losses.append([row["train/loss"] for row in rows])
    assert losses[1] == pytest.approx(losses[0], rel=0.05)  # rounding grows from step to step


def test_a_run_with_relative_paths_is_used_from_another_folder(
    tiny_recipe: Any, digits: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    work, other = tmp_path / "study", tmp_path / "elsewhere"
    run = Path("../study/runs/t")
    other.mkdir()
    for task in ("source", "target"):
        shutil.copytree(digits[task], work / "shards" / task)
    monkeypatch.chdir(work)
    relative = {"data__target": "shards/target", "data__source": "shards/source"}
    launch(tiny_recipe(**FEW, **relative, epochs=1), Path("runs/t"))
    monkeypatch.chdir(other)
    shutil.copytree(digits["source"], other / "shards" / "target")  # other images under the same name
    record = evaluate_run(run, out=Path("out"))
    assert record.recipe["data"]["target"] == "shards/target"
    target, same_model = reopen(read_evidence(Path("out/record.json")), None)
    assert same_model.passed
    assert check_images(read_evidence(Path("out/record.json")), target).passed
    assert calibrate(run).checkpoint
    assert Classifier.open(run, use_gpu=False).long_side == 8
    shutil.move(work / "shards", tmp_path / "away")
    shutil.rmtree(other / "shards")
    with pytest.raises(ShardError, match=r"shards/target: no shards here, nor in any folder around the run"):
        evaluate_run(run, out=Path("again"))
