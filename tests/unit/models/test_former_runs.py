import json
from pathlib import Path
from typing import Any

import pytest
import torch

from temper.errors import ModelError
from temper.models import ModelSpec, TaskModel, build_model, save_model
from temper.models.initial_weights import start_classes
from temper.records import sha256_of

CLASSES = {"target": ["a", "b", "c"], "source": ["x", "y"]}


def build(backbone: str, seed: int = 1, classes: Any = CLASSES, **options: Any) -> TaskModel:
    return build_model(ModelSpec(backbone=backbone, **options), classes, image_size=32, seed=seed).eval()


def make_run(folder: Path, model: TaskModel, classes: dict[str, list[str]], recipe: dict[str, Any]) -> None:
    save_model(model, folder / "checkpoint" / "model.safetensors")
    (folder / "checkpoint" / "state.json").write_text(json.dumps({"classes": classes}))
    (folder / "recipe.yaml").write_text(json.dumps(recipe))
    digest = sha256_of(folder / "checkpoint" / "model.safetensors")
    file = {"path": "../run/checkpoint/model.safetensors", "sha256": digest}
    (folder / "record.json").write_text(json.dumps({"files": {"checkpoint": file}, "recipe": recipe}))


@pytest.mark.parametrize("what", ["", "record.json", "checkpoint/model.safetensors"])
@pytest.mark.parametrize("is_binary", [False, True])
def test_a_former_run(tmp_path: Path, what: str, is_binary: bool) -> None:
    theirs = {"target": ["x", "y"]}
    former = build("resnet8", seed=0, classes=theirs, is_binary=is_binary)
    former.mean.fill_(0.25)
    make_run(tmp_path / "run", former, theirs, {"model": {"backbone": "resnet8"}})
    where = str(tmp_path / "run" / what)
    model = build("resnet8", weights=where)
    images = torch.rand(3, 3, 32, 32)
    with torch.no_grad():
        assert torch.allclose(model(images, task="source").softmax(1), former(images).softmax(1), atol=1e-5)
    is_file = what.endswith(".safetensors")
    assert start_classes(where, "resnet8") == (["0", "1"] if is_file else ["x", "y"])


def test_a_former_run_with_an_adapter_is_merged(tmp_path: Path) -> None:
    theirs, adapter = {"target": ["x", "y"]}, {"kind": "lora", "rank": 2}
    former = build("small_vit", seed=0, classes=theirs, adapter=adapter)
    with torch.no_grad():
        for parameter in former.backbone.parameters():
            parameter.add_(0.02 * torch.randn(parameter.shape))
    make_run(tmp_path / "run", former, theirs, {"model": {"backbone": "small_vit", "adapter": adapter}})
    generator = torch.get_rng_state()
    model = build("small_vit", weights=str(tmp_path / "run"))
    assert torch.equal(torch.get_rng_state(), generator)
    images = torch.rand(3, 3, 32, 32)
    with torch.no_grad():
        assert torch.allclose(model(images, task="source"), former(images), atol=1e-4)


def test_a_checkpoint_that_was_changed_after_its_record(tmp_path: Path) -> None:
    make_run(tmp_path / "run", build("resnet8", seed=0), CLASSES, {})
    save_model(build("resnet8", seed=5), tmp_path / "run" / "checkpoint" / "model.safetensors")
    with pytest.raises(ModelError, match=r"is another file: its SHA-256 is .*, expected"):
        build("resnet8", weights=str(tmp_path / "run" / "record.json"))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no such record"),
        ("{}", "not the record of a temper run"),
        ("[", "not the record of a temper run"),
    ],
)
def test_what_is_no_record(tmp_path: Path, content: str | None, message: str) -> None:
    if content is not None:
        (tmp_path / "record.json").write_text(content)
    with pytest.raises(ModelError, match=message):
        start_classes(str(tmp_path / "record.json"), "resnet8")


def test_an_empty_folder_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="holds no finished checkpoint of a temper run"):
        build("resnet8", weights=str(tmp_path))
