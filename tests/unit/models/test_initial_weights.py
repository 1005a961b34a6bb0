from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from safetensors.torch import save_file
from torch import Tensor, nn

from temper.errors import ModelError
from temper.models import ModelSpec, TaskModel, build_model
from temper.models.heads import BinaryHead
from temper.models.initial_weights import Classifier, load_head, load_source_head, load_start, start_classes

CLASSES = {"target": ["a", "b", "c"], "source": [str(index) for index in range(7)]}


def build(backbone: str, size: int = 32, seed: int = 1, **options: Any) -> TaskModel:
    classes = options.pop("classes", CLASSES)
    return build_model(ModelSpec(backbone=backbone, **options), classes, image_size=size, seed=seed).eval()


def source_logits(model: TaskModel, images: Tensor) -> Tensor:
    with torch.no_grad():
        return model(images, task="source")


@pytest.mark.parametrize(
    ("name", "size"),
    [("resnet18", 32), ("googlenet", 32), ("mobilenet_v3_small", 32), ("mnasnet0_5", 32),
     ("regnet_x_400mf", 32), ("shufflenet_v2_x0_5", 32)],
)  # fmt: skip
def test_a_file_of_torchvision_is_the_same_function(tmp_path: Path, name: str, size: int) -> None:
    torch.manual_seed(0)
    options = {"transform_input": True, "init_weights": False} if name == "googlenet" else {}
    theirs = torchvision.models.get_model(name, num_classes=7, **options).eval()
    torch.save(theirs.state_dict(), tmp_path / "w.pth")
    model = build(name, size, weights=str(tmp_path / "w.pth"))
    images = torch.rand(2, 3, size, size)
    with torch.no_grad():
        expected = theirs((images - model.mean) / model.std)
    assert torch.allclose(source_logits(model, images), expected, atol=1e-4)
    assert start_classes(str(tmp_path / "w.pth"), name) == CLASSES["source"]


def wrapped(state: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {f"{prefix}{name}": tensor for name, tensor in state.items()}


@pytest.fixture(scope="module")
def state() -> dict[str, Tensor]:
    """A state dict as of a small robust network with a classifier of 7 classes."""
    model = build("wide_resnet16_4", seed=0)
    head = nn.Linear(256, 7)
    return {**model.backbone.state_dict(), "fc.weight": head.weight.data, "fc.bias": head.bias.data}


MEAN, STD = torch.tensor([0.1, 0.2, 0.3]), torch.tensor([0.4, 0.5, 0.6])
FORMS: dict[str, Any] = {
    "plain": lambda s: s,
    "module": lambda s: wrapped(s, "module."),
    "twice wrapped": lambda s: {"state_dict": wrapped(s, "module.model."), "epoch": 3},
    "nested": lambda s: {"net": {"model_state_dict": wrapped(s, "backbone.")}, "optimizer": {"lr": [0.1]}},
    "compiled": lambda s: {"model": wrapped(s, "_orig_mod.module.")},
    "TRADES": lambda s: {**s, "sub_block1.layer.0.bn1.weight": torch.ones(16)},
    "robustness": lambda s: {
        "model": {
            **wrapped(s, "module.model."),
            **wrapped(s, "module.attacker.model."),
            "module.normalizer.new_mean": MEAN.view(3, 1, 1),
            "module.normalizer.new_std": STD.view(3, 1, 1),
            "module.attacker.normalize.new_mean": torch.zeros(3, 1, 1),
            "module.attacker.normalize.new_std": torch.ones(3, 1, 1),
        }
    },
    "RobustBench": lambda s: {
        "normalize.mean": MEAN.view(1, 3, 1, 1), "normalize.std": STD.view(1, 3, 1, 1), **wrapped(s, "model.")
    },
    "Sequential": lambda s: {"0.mean": MEAN, "0.std": STD, **wrapped(s, "1.")},
    "buffers": lambda s: {"mu": MEAN, "sigma": STD, **s},
}  # fmt: skip
NORMALIZED = {"robustness", "RobustBench", "Sequential", "buffers"}


@pytest.mark.parametrize("form", FORMS)
def test_robust_checkpoints_as_they_are_published(
    tmp_path: Path, state: dict[str, Tensor], form: str
) -> None:
    torch.save(FORMS[form](state), tmp_path / "w.pt")
    model = build("wide_resnet16_4", weights=str(tmp_path / "w.pt"))
    assert all(torch.equal(tensor, state[name]) for name, tensor in model.backbone.state_dict().items())
    assert torch.equal(model.heads["source"].weight, state["fc.weight"])
    assert torch.equal(model.heads["source"].bias, state["fc.bias"])
    expected = (MEAN, STD) if form in NORMALIZED else (torch.zeros(3), torch.ones(3))
    assert torch.equal(model.mean.flatten(), expected[0])
    assert torch.equal(model.std.flatten(), expected[1])
    assert start_classes(str(tmp_path / "w.pt"), "wide_resnet16_4") == CLASSES["source"]


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        (
            {"mean": torch.full((3,), 123.7), "std": torch.full((3,), 58.4)},
            "a normalization that does not fit images",
        ),
        ({"mean": MEAN}, "a normalization that does not fit images"),
        ({"std": torch.zeros(3), "mean": MEAN}, r"std \[0.0, 0.0, 0.0\]"),
        (
            {"module.conv1.weight": torch.zeros(1)},
            "two entries for 'conv1.weight', one of them 'module.conv1",
        ),
    ],
)
def test_ambiguous_files(tmp_path: Path, state: dict[str, Tensor], extra: Any, message: str) -> None:
    torch.save({**state, **extra}, tmp_path / "w.pt")
    with pytest.raises(ModelError, match=message):
        build("wide_resnet16_4", weights=str(tmp_path / "w.pt"))


def test_a_mismatch_names_every_kind_of_entry(tmp_path: Path, state: dict[str, Tensor]) -> None:
    damaged = {
        **{name: tensor.contiguous() for name, tensor in state.items()},
        "conv1.weight": torch.zeros(8, 3, 3, 3),
        "stem.weight": torch.zeros(1),
    }
    del damaged["bn1.bias"]
    save_file(damaged, tmp_path / "w.safetensors")
    model = build("wide_resnet16_4")
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(
        ModelError, match=r"missing: bn1.bias; unexpected: stem.weight; wrong shape: conv1.weight \(8"
    ):
        load_start(model, str(tmp_path / "w.safetensors"), CLASSES)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_shortcuts_as_the_papers_name_them(tmp_path: Path) -> None:
    theirs = build("preact_resnet18", seed=0).backbone.state_dict()
    renamed = {name.replace(".shortcut.", ".shortcut.0."): tensor for name, tensor in theirs.items()}
    assert renamed.keys() != theirs.keys()
    torch.save({**renamed, "linear.weight": torch.ones(7, 512)}, tmp_path / "w.pth")
    model = build("preact_resnet18", weights=str(tmp_path / "w.pth"))
    assert torch.equal(model.backbone.layer4[0].shortcut.weight, theirs["layer4.0.shortcut.weight"])
    assert torch.equal(model.heads["source"].weight, torch.ones(7, 512))
    assert not model.heads["source"].bias.any()


def test_names_of_torchvisions_former_versions(tmp_path: Path) -> None:
    theirs = build("densenet121", seed=0).backbone.state_dict()
    old = {n.replace(".norm1.", ".norm.1.").replace(".conv2.", ".conv.2."): t for n, t in theirs.items()}
    assert old.keys() != theirs.keys()
    torch.save(old, tmp_path / "w.pth")
    model = build("densenet121", weights=str(tmp_path / "w.pth"))
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in model.backbone.state_dict().items())


def test_a_classifier_of_other_classes_is_dropped(tmp_path: Path, state: dict[str, Tensor]) -> None:
    torch.save({**state, "fc.weight": torch.ones(9, 256), "fc.bias": torch.ones(9)}, tmp_path / "w.pt")
    model = build("wide_resnet16_4", weights=str(tmp_path / "w.pt"))
    assert torch.equal(model.heads["source"].weight, build("wide_resnet16_4").heads["source"].weight)
    assert len(start_classes(str(tmp_path / "w.pt"), "wide_resnet16_4") or []) == 9


def test_no_classes() -> None:
    assert start_classes(None, "resnet18") is None
    assert start_classes("pretrained", "resnet8") is None
    assert len(start_classes("pretrained", "maxvit_t") or []) == 1000


@pytest.mark.parametrize("form", ["two logits to one", "one logit to two", "same"])
def test_one_logit_and_two_are_the_same_classifier(form: str) -> None:
    torch.manual_seed(0)
    features = torch.randn(5, 6)
    two, one = nn.Linear(6, 2), BinaryHead(6)
    source, head = {
        "two logits to one": (two, one),
        "one logit to two": (one.linear, two),
        "same": (two, nn.Linear(6, 2)),
    }[form]
    expected = (one if source is one.linear else source)(features).softmax(1).detach()
    assert load_head(head, Classifier(source.weight.detach().clone(), source.bias.detach().clone()))
    assert torch.allclose(head(features).softmax(1), expected, atol=1e-6)
    assert not load_head(head, Classifier(torch.zeros(3, 6), torch.zeros(3)))
    assert not load_head(head, Classifier(torch.zeros(2, 5), torch.zeros(2)))


def test_a_pretrained_classifier_becomes_the_source_head() -> None:
    model = build("resnet8")
    classifier = nn.Linear(64, 7, bias=False)
    assert load_source_head(model, classifier)
    assert torch.equal(model.heads["source"].weight, classifier.weight)
    assert not model.heads["source"].bias.any()
    assert not load_source_head(model, None)
    assert not load_source_head(model, nn.Linear(64, 8))
    assert not load_source_head(build("resnet8", classes={"target": ["a", "b"]}), classifier)
