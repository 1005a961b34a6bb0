from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from safetensors.torch import save_file

from temper.errors import ModelError
from temper.models import ModelSpec, build_model, count_params, load_model_state, save_model

CLASSES = {"target": ["a", "b", "c"], "source": ["x", "y"]}


def build(backbone: str, size: int, weights: str | None = None) -> Any:
    return build_model(ModelSpec(backbone=backbone, weights=weights), CLASSES, image_size=size, seed=0)


@pytest.mark.parametrize(
    ("backbone", "size"),
    [("resnet8", 8), ("resnet20", 32), ("preact_resnet18", 16), ("resnet18", 64), ("small_vit", 32)],
)
def test_two_heads_one_pass(backbone: str, size: int) -> None:
    model = build(backbone, size).eval()
    images = torch.rand(2, 3, size, size)
    with torch.no_grad():
        both = model({"target": images, "source": images})
        assert both["target"].shape == (2, 3)
        assert both["source"].shape == (2, 2)
        assert torch.allclose(both["source"], model(images, task="source"), atol=1e-5)
    grouped = sum(p.numel() for group in model.group_names for p in model.group_parameters(group).values())
    assert grouped == count_params(model)


def test_normalization_is_inside() -> None:
    model = build("resnet18", 32)
    assert model.mean.flatten().tolist() == pytest.approx([0.485, 0.456, 0.406])
    assert model.std.flatten().tolist() == pytest.approx([0.229, 0.224, 0.225])


def test_same_seed_same_weights_and_no_trace_on_the_global_generator() -> None:
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    first, second = build("resnet8", 8), build("resnet8", 8)
    assert torch.equal(torch.rand(1), expected)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_torchvision_weights_from_a_local_file(tmp_path: Path, suffix: str) -> None:
    theirs = torchvision.models.resnet18(num_classes=7)
    path = tmp_path / f"weights{suffix}"
    state = theirs.state_dict()
    torch.save(state, path) if suffix == ".pth" else save_file(state, path)
    model = build("resnet18", 64, str(path))
    assert torch.equal(model.backbone.conv1.weight, theirs.conv1.weight)
    assert torch.equal(model.backbone.layer4[1].bn2.running_var, theirs.layer4[1].bn2.running_var)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no such file or run folder"),
        (b"garbage", "not a safetensors file or plain state dict"),
        (
            {"conv1.weight": torch.zeros(2)},
            r"missing: .*wrong shape: conv1.weight \(2,\) for \(16, 3, 3, 3\)",
        ),
        ([1, 2], "holds no state dict"),
    ],
)
def test_wrong_weights(tmp_path: Path, content: Any, message: str) -> None:
    path = tmp_path / "w.pth"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        torch.save(content, path)
    with pytest.raises(ModelError, match=message):
        build("resnet8", 8, str(path))


class Payload:
    """Unpickling this would run code."""

    def __reduce__(self) -> Any:
        return (Path.touch, (Path("owned"),))


def test_pickled_code_is_never_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"conv1.weight": Payload()}, tmp_path / "evil.pth")
    with pytest.raises(ModelError, match="not a safetensors file or plain state dict"):
        build("resnet8", 8, str(tmp_path / "evil.pth"))
    assert not (tmp_path / "owned").exists()


def test_checkpoint_round_trip(tmp_path: Path, model: Any, batch: Any) -> None:
    save_model(model, tmp_path / "m.safetensors")
    other = build_model(ModelSpec(backbone="resnet8"), CLASSES, image_size=16, seed=9).eval()
    assert not torch.equal(other(batch[0]), model(batch[0]))
    load_model_state(other, tmp_path / "m.safetensors")
    assert torch.equal(other(batch[0]), model(batch[0]))
