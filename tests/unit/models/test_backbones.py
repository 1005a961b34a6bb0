import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from torch import nn
from torchvision.models.regnet import BlockParams

from temper.errors import ModelError
from temper.models.backbones import (
    Backbone,
    backbone_names,
    build_backbone,
    classifier_path,
    is_known_backbone,
    pretrained_categories,
)
from temper.models.torchvision_networks import MULTIPLES, SMALLEST, TORCHVISION


@pytest.fixture
def on_meta(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Builds a backbone without memory for its weights."""
    widths = BlockParams.from_init_params.__func__

    def on_cpu(cls: Any, *args: Any, **kwargs: Any) -> Any:
        with torch.device("cpu"):  # RegNets compute their widths with tensors
            return widths(cls, *args, **kwargs)

    monkeypatch.setattr(BlockParams, "from_init_params", classmethod(on_cpu))

    def build(name: str, image_size: int) -> Backbone:
        with torch.device("meta"):
            return build_backbone(name, image_size)

    return build


def smallest(name: str) -> int:
    """The least image size that the tables allow."""
    bounds = [
        size for table in (SMALLEST, MULTIPLES) for start, size in table.items() if name.startswith(start)
    ]
    return max(bounds, default=8)


def check_groups(backbone: Backbone) -> None:
    """Every parameter is in one group, once."""
    grouped = [
        id(parameter)
        for parts in backbone.groups.values()
        for part in parts
        for parameter in ([part] if isinstance(part, nn.Parameter) else part.parameters())
    ]
    assert sorted(grouped) == sorted(map(id, backbone.module.parameters()))
    assert len(backbone.groups) >= 4
    assert next(iter(backbone.groups)) == "stem"


def test_names_are_torchvisions() -> None:
    assert sorted(TORCHVISION) == sorted(torchvision.models.list_models(module=torchvision.models))


@pytest.mark.parametrize("name", backbone_names())
def test_every_backbone_answers_features(on_meta: Any, name: str) -> None:
    size = smallest(name)
    backbone = on_meta(name, size)
    check_groups(backbone)
    with torch.no_grad():
        features = backbone.module.eval()(torch.empty(2, 3, size, size, device="meta"))
    assert features.shape == (2, backbone.num_features)
    assert type(backbone.module.get_submodule(classifier_path(name))).__name__ == "NoClassifier"


@pytest.mark.parametrize("name", ["alexnet", "squeezenet1_0", "squeezenet1_1", "vgg11", "densenet121",
                                  "convnext_tiny", "inception_v3", "googlenet", "maxvit_t", "vit_b_16",
                                  "swin_t", "small_vit"])  # fmt: skip
def test_too_small_images(on_meta: Any, name: str) -> None:
    size = smallest(name) - 1
    with pytest.raises(ModelError, match=rf"^data.image_size: {name} needs .* px, got {size}"):
        on_meta(name, size)


@pytest.mark.parametrize(("name", "size"), [("vit_b_16", 224), ("vit_h_14", 518), ("maxvit_t", 224)])
def test_pretrained_weights_of_another_size(name: str, size: int) -> None:
    with pytest.raises(ModelError, match=rf"pretrained weights of {name} are for {size} px, got 448"):
        build_backbone(name, 448, pretrained=True)


def test_pretrained_weights_without_a_network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The message says what to fetch, and what else a model can start from."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    with pytest.raises(
        ModelError, match=r"could not be downloaded .*resnet18-\w+\.pth elsewhere .* or to null"
    ):
        build_backbone("resnet18", 64, pretrained=True)


def test_no_pretrained_weights() -> None:
    with pytest.raises(ModelError, match="no pretrained weights for 'wide_resnet28_10'"):
        build_backbone("wide_resnet28_10", 32, pretrained=True)


def test_unknown_name() -> None:
    with pytest.raises(ModelError, match=r"no backbone 'resnet19' \(did you mean 'resnet1.*or timm/<name>"):
        build_backbone("resnet19", 32)
    assert not is_known_backbone("resnet19")
    assert is_known_backbone("resnet18")
    assert is_known_backbone("timm/whatever")
    assert not is_known_backbone("timm/")


def test_naming_a_backbone_imports_no_network_package() -> None:
    code = (
        "import sys; from temper.models import ModelSpec; ModelSpec(backbone='swin_t');"
        "assert not {'torchvision', 'timm'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


@pytest.mark.parametrize(
    ("name", "mean"),
    [("resnet18", 0.485), ("efficientnet_v2_l", 0.5), ("wide_resnet16_4", 0), ("resnet8", 0.5)],
)
def test_normalization_is_that_of_the_pretrained_weights(on_meta: Any, name: str, mean: float) -> None:
    assert on_meta(name, 32).mean_std[0][0] == mean


@pytest.mark.parametrize(
    ("name", "first"),
    [("resnet50", "tench"), ("vit_b_16", "tench"), ("squeezenet1_1", None), ("resnet8", None)],
)
def test_categories_without_a_download(name: str, first: str | None) -> None:
    categories = pretrained_categories(name)
    assert (categories[0] if categories else None) == first
    assert categories is None or len(categories) == 1000


@pytest.mark.parametrize("name", ["mobilenet_v3_small", "googlenet", "inception_v3", "squeezenet1_1"])
def test_pretrained_weights_and_their_classifier(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    options = (
        {"transform_input": True, "init_weights": False} if name in ("googlenet", "inception_v3") else {}
    )
    theirs = torchvision.models.get_model(name, **options).eval()
    # torch.hub takes a file that is there already: so random weights stand for those of the download.
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    url = torchvision.models.get_model_weights(name).DEFAULT.url
    (tmp_path / "hub/checkpoints").mkdir(parents=True)
    torch.save(theirs.state_dict(), tmp_path / "hub/checkpoints" / url.rpartition("/")[2])
    backbone = build_backbone(name, 80, pretrained=True)
    check_groups(backbone)
    images = torch.randn(2, 3, 80, 80)
    with torch.no_grad():
        features = backbone.module.eval()(images)
        if backbone.classifier is None:
            assert name == "squeezenet1_1"
            assert torch.allclose(features, theirs.features(images).mean(dim=(2, 3)), atol=1e-5)
        else:
            assert torch.allclose(backbone.classifier(features), theirs(images), atol=1e-4)
