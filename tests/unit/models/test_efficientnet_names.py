"""Files of lukemelas/EfficientNet-PyTorch in timm's networks."""

import itertools
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from temper.errors import ModelError
from temper.models import ModelSpec, TaskModel, build_model
from temper.models.efficientnet_names import rename_efficientnet
from temper.models.initial_weights import load_start, start_classes

timm = pytest.importorskip("timm")

CLASSES = {"target": ["a", "b"], "source": [str(index) for index in range(7)]}
HEAD = {
    "bn1": "_bn0",
    "bn2": "_bn1",
    "classifier": "_fc",
    "conv_stem": "_conv_stem",
    "conv_head": "_conv_head",
}
"""Theirs -> lukemelas', outside the blocks."""


def as_theirs(network: nn.Module) -> dict[str, Tensor]:
    """The state dict as lukemelas names it, from timm's."""
    renamed: dict[str, Tensor] = {}
    counts = [len(stage) for stage in network.get_submodule("blocks")]  # type: ignore[arg-type]
    numbers = {place: n for n, place in enumerate((s, b) for s, c in enumerate(counts) for b in range(c))}
    for name, tensor in network.state_dict().items():
        parts = name.split(".")
        if parts[0] != "blocks":
            renamed[".".join([HEAD[parts[0]], *parts[1:]])] = tensor
            continue
        stage, block, *inner = parts[1:]
        is_separable = stage == "0"  # the first stage alone does not widen
        if inner[0] == "se":
            theirs = [{"conv_reduce": "_se_reduce", "conv_expand": "_se_expand"}[inner[1]], *inner[2:]]
        elif inner[0].startswith("bn"):
            theirs = [f"_bn{int(inner[0][2:]) - (0 if is_separable else 1)}", *inner[1:]]
        else:
            first = "_project_conv" if is_separable else "_expand_conv"
            layers = {"conv_dw": "_depthwise_conv", "conv_pw": first, "conv_pwl": "_project_conv"}
            theirs = [layers[inner[0]], *inner[1:]]
        renamed[".".join(["_blocks", str(numbers[int(stage), int(block)]), *theirs])] = tensor
    return renamed


def build(backbone: str, size: int = 32) -> TaskModel:
    return build_model(ModelSpec(backbone=backbone), CLASSES, image_size=size, seed=1).eval()


@pytest.fixture(scope="module")
def b0() -> nn.Module:
    """timm's EfficientNet-B0 with a classifier of 7 classes, and statistics of its own."""
    torch.manual_seed(0)
    network: nn.Module = timm.create_model("tf_efficientnet_b0", num_classes=7)
    for name, tensor in network.state_dict().items():
        if "running" in name:
            tensor.copy_(torch.rand(tensor.shape) + 0.5)
    return network.eval()


@pytest.mark.parametrize("prefix", ["", "module."])
def test_a_file_of_b0_is_the_same_function(tmp_path: Path, b0: nn.Module, prefix: str) -> None:
    torch.save({f"{prefix}{name}": tensor for name, tensor in as_theirs(b0).items()}, tmp_path / "b0.pth")
    model = build("timm/tf_efficientnet_b0")
    load_start(model, str(tmp_path / "b0.pth"), CLASSES)
    images = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        expected = b0((images - model.mean) / model.std)
        assert torch.allclose(model(images, task="source"), expected, atol=1e-4)
    assert start_classes(str(tmp_path / "b0.pth"), "timm/tf_efficientnet_b0") == CLASSES["source"]


THEIRS = {
    # As they stand in efficientnet-b0-355c32eb.pth, with the shapes of the paper's table 1.
    "_conv_stem.weight": ("conv_stem.weight", (32, 3, 3, 3)),
    "_bn0.running_mean": ("bn1.running_mean", (32,)),
    "_blocks.0._depthwise_conv.weight": ("blocks.0.0.conv_dw.weight", (32, 1, 3, 3)),
    "_blocks.0._bn1.weight": ("blocks.0.0.bn1.weight", (32,)),
    "_blocks.0._se_reduce.bias": ("blocks.0.0.se.conv_reduce.bias", (8,)),
    "_blocks.0._project_conv.weight": ("blocks.0.0.conv_pw.weight", (16, 32, 1, 1)),
    "_blocks.0._bn2.bias": ("blocks.0.0.bn2.bias", (16,)),
    "_blocks.1._expand_conv.weight": ("blocks.1.0.conv_pw.weight", (96, 16, 1, 1)),
    "_blocks.1._bn0.weight": ("blocks.1.0.bn1.weight", (96,)),
    "_blocks.2._bn1.running_var": ("blocks.1.1.bn2.running_var", (144,)),
    "_blocks.3._depthwise_conv.weight": ("blocks.2.0.conv_dw.weight", (144, 1, 5, 5)),
    "_blocks.15._se_expand.weight": ("blocks.6.0.se.conv_expand.weight", (1152, 48, 1, 1)),
    "_blocks.15._project_conv.weight": ("blocks.6.0.conv_pwl.weight", (320, 1152, 1, 1)),
    "_blocks.15._bn2.weight": ("blocks.6.0.bn3.weight", (320,)),
    "_conv_head.weight": ("conv_head.weight", (1280, 320, 1, 1)),
    "_bn1.bias": ("bn2.bias", (1280,)),
    "_fc.weight": ("classifier.weight", (7, 1280)),
}


def test_entries_written_by_hand(b0: nn.Module) -> None:
    own = {name: torch.zeros(shape) for name, (_, shape) in THEIRS.items()}
    renamed = rename_efficientnet(own, b0, "here")
    assert list(renamed) == [ours for ours, _ in THEIRS.values()]
    assert all(tensor.shape == b0.state_dict()[name].shape for name, tensor in renamed.items())


@pytest.mark.parametrize("name", ["tf_efficientnet_b7", "tf_efficientnet_lite4"])
def test_larger_ones_in_names_and_shapes(name: str) -> None:
    with torch.device("meta"):
        network = timm.create_model(name)
    renamed = rename_efficientnet(as_theirs(network), network, "here")
    assert {n: t.shape for n, t in renamed.items()} == {n: t.shape for n, t in network.state_dict().items()}


def test_entries_without_a_place_keep_their_names(tmp_path: Path, b0: nn.Module) -> None:
    more: dict[str, Any] = {"_blocks.16._bn0.weight": torch.ones(1), "_blocks.x._bn0.weight": torch.ones(1)}
    torch.save({**as_theirs(b0), **more}, tmp_path / "b0.pth")
    with pytest.raises(ModelError, match=r"unexpected: _blocks.16._bn0.weight, _blocks.x._bn0.weight$"):
        load_start(build("timm/tf_efficientnet_b0"), str(tmp_path / "b0.pth"), CLASSES)


def test_a_network_with_another_padding_is_refused(tmp_path: Path, b0: nn.Module) -> None:
    torch.save(as_theirs(b0), tmp_path / "b0.pth")
    with pytest.raises(
        ModelError, match=r"padding of TensorFlow; set model.backbone .* timm/tf_efficientnet"
    ):
        load_start(build("timm/efficientnet_b0"), str(tmp_path / "b0.pth"), CLASSES)
    with pytest.raises(ModelError, match="weights of another backbone"):
        load_start(build("resnet18"), str(tmp_path / "b0.pth"), CLASSES)


def test_other_files_are_left_alone(b0: nn.Module) -> None:
    own = dict(itertools.islice(b0.state_dict().items(), 5))
    assert rename_efficientnet(own, b0, "here") == own
