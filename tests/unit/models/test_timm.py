import logging
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from temper.errors import ModelError
from temper.models import ModelSpec, build_model
from temper.models.backbones import build_backbone, classifier_path, pretrained_categories
from temper.models.initial_weights import load_start

timm = pytest.importorskip("timm")

SOURCE = {"target": ["a", "b"], "source": [str(index) for index in range(5)]}


@pytest.mark.parametrize(
    ("name", "size"),
    [("test_resnet", 32), ("test_vit", 32), ("test_convnext", 64), ("test_byobnet", 32),
     ("mobilenetv3_small_050", 32)],
)  # fmt: skip
def test_a_network_of_timm_from_a_file_is_the_same_function(tmp_path: Path, name: str, size: int) -> None:
    torch.manual_seed(0)
    options = {"img_size": size} if "vit" in name else {}
    theirs = timm.create_model(name, num_classes=5, **options).eval()
    torch.save(theirs.state_dict(), tmp_path / "w.pth")
    model = build(name, size)
    grouped = sum(p.numel() for group in model.group_names for p in model.group_parameters(group).values())
    assert grouped == sum(p.numel() for p in model.parameters())
    assert len(model.group_names) >= 4
    load_start(model, str(tmp_path / "w.pth"), SOURCE)
    images = torch.rand(2, 3, size, size)
    with torch.no_grad():
        expected = theirs((images - model.mean) / model.std)
        assert torch.allclose(model.eval()(images, task="source"), expected, atol=1e-4)


def build(name: str, size: int) -> Any:
    return build_model(ModelSpec.model_construct(backbone=f"timm/{name}"), SOURCE, image_size=size, seed=1)


def test_normalization_and_classes_are_timms() -> None:
    assert build_backbone("timm/test_vit", 32).mean_std == ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    assert build_backbone("timm/test_byobnet", 32).mean_std[0] == (0.485, 0.456, 0.406)
    categories = pretrained_categories("timm/test_vit")
    assert categories is not None
    assert categories[0].startswith("tench")
    assert classifier_path("timm/test_convnext") == "head.fc"


def test_two_averaged_classifiers_are_none() -> None:
    assert classifier_path("timm/deit_tiny_distilled_patch16_224") == ""
    assert pretrained_categories("timm/deit_tiny_distilled_patch16_224") is None


@pytest.mark.parametrize(
    ("name", "size", "message"),
    [
        ("timm/resnet19", 32, r"timm has no network 'resnet19'; did you mean 'timm/resnet1"),
        ("timm/hf-hub:someone/model", 32, "timm has no network 'hf-hub:someone/model'"),
        (
            "timm/test_vit",
            33,
            r"data.image_size: 'timm/test_vit' needs a multiple of its patch size, 16 px, got 33",
        ),
        ("timm/test_convnext", 8, r"'timm/test_convnext' could not be built for 8 px"),
    ],
)
def test_what_timm_cannot_build(name: str, size: int, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        build_backbone(name, size)


def test_without_timm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(
        ModelError, match=r"'timm/resnet18' needs the package timm: pip install 'temper\[timm\]'"
    ):
        build_backbone("timm/resnet18", 32)


@pytest.mark.parametrize("size", [32, 96])
def test_positions_of_a_file_are_resampled_as_timm_does_it(
    size: int, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Up and down, from the 64 px of the file."""
    from timm.layers.pos_embed import resample_abs_pos_embed

    torch.manual_seed(0)
    theirs = timm.create_model("test_vit", num_classes=5, img_size=64)
    torch.nn.init.normal_(theirs.pos_embed)
    path = tmp_path / "w.pth"
    torch.save(theirs.state_dict(), path)
    grid = size // 16
    with caplog.at_level(logging.WARNING):
        model = build("test_vit", size)
        load_start(model, str(path), SOURCE)
    expected = resample_abs_pos_embed(theirs.pos_embed, [grid, grid], num_prefix_tokens=1)
    assert torch.allclose(model.backbone.pos_embed, expected, atol=1e-6)
    assert f"{path}: pos_embed is resampled from 4 x 4 patches to {grid} x {grid}" in caplog.text


def test_patches_cover_the_whole_image() -> None:
    """timm itself leaves out what is over at the border."""
    with pytest.raises(
        ModelError,
        match=r"^data.image_size: 'timm/test_vit' needs a multiple of .* 16 px, got 40; set 32 or 48$",
    ):
        build_backbone("timm/test_vit", 40)
    with pytest.raises(ModelError, match=r"got 8; set 16$"):
        build_backbone("timm/test_vit", 8)
    build_backbone("timm/mobilenetv3_small_050", 40)


def test_weights_of_another_backbone_name_those_that_they_fit(tmp_path: Path) -> None:
    path = tmp_path / "w.pth"
    torch.save(timm.create_model("test_vit2", num_classes=5).state_dict(), path)
    for backbone in ("timm/test_vit3", "resnet18"):
        spec = ModelSpec(backbone=backbone, weights=str(path))
        with pytest.raises(ModelError, match="weights of another backbone; ") as caught:
            build_model(spec, SOURCE, image_size=64, seed=0)
        assert ("they fit timm/test_vit2: set model.backbone" in str(caught.value)) == ("timm" in backbone)
        assert len(str(caught.value).splitlines()) == 1
    # What timm calls otherwise than torchvision does.
    torch.save(timm.create_model("densenet121", num_classes=5).state_dict(), path)
    build_model(ModelSpec(backbone="densenet121", weights=str(path)), SOURCE, image_size=64, seed=0)
    torch.save(timm.create_model("vit_tiny_patch16_224", num_classes=5).state_dict(), path)
    with pytest.raises(ModelError, match="they fit timm/vit_tiny_patch16_224 and timm/deit_tiny_patch16_224"):
        build_model(ModelSpec(backbone="vit_b_16", weights=str(path)), SOURCE, image_size=32, seed=0)
