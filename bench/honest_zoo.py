"""Honest models of many kinds, trained or loaded in seconds: what no gate may block."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from masked_models import load_digits
from temper.attacks import PGD, PatchPGD, attack_mode
from temper.data import ImageView, find_images, read_image
from temper.models import ModelSpec, TaskModel, build_model, set_trainable, train_modes
from temper.models.adapters import AnyAdapter
from temper.models.backbone import Backbone
from temper.spec import Threat

BATCH_SIZE = 64
LITE0 = "efficientnet-lite0"
CIFAR_RESNETS = {"cifar_resnet20": (3, "cifar10_resnet20"), "cifar_resnet56": (9, "cifar10_resnet56")}
"""Name -> blocks of each width, and the beginning of the weights file's name."""
IMAGENET_MEAN_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Task:
    """Images uint8 (N,3,S,S) with labels (N,) int64, to train on and to judge on."""

    train: tuple[np.ndarray, np.ndarray]
    test: tuple[np.ndarray, np.ndarray]
    classes: list[str]

    @property
    def size(self) -> int:
        return int(self.train[0].shape[-1])


def digits(num_test: int, classes: int = 10) -> Task:
    """scikit-learn's, 8 px; the first ``classes`` of them."""
    images, labels = load_digits()
    chosen = labels < classes
    images, labels = images[chosen], labels[chosen]
    names = [str(digit) for digit in range(classes)]
    num_train = len(labels) * 2 // 3
    return Task(
        (images[:num_train], labels[:num_train]),
        (images[num_train:][:num_test], labels[num_train:][:num_test]),
        names,
    )


def real(name: str, size: int, num_train: int, num_test: int) -> Task:
    """Random images of a set below TEMPER_DATA, at ``size`` pixels."""
    root = Path(os.environ["TEMPER_DATA"]) / name
    classes = sorted(folder.name for folder in (root / "train").iterdir())
    train = _read(root / "train", classes, size, num_train)
    return Task(train, _read(root / "test", classes, size, num_test), classes)


def _read(root: Path, classes: list[str], size: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    files = [(file, label) for label, name in enumerate(classes) for file in find_images([root / name])]
    order = np.random.default_rng(0).permutation(len(files))[:count]
    images = np.stack([read_image(files[index][0], ImageView(size, "stretch"), None) for index in order])
    return images, np.array([files[index][1] for index in order], dtype=np.int64)


# --- networks -----------------------------------------------------------------------------------


class PaddedBlock(nn.Module):
    """Two convolutions; the shortcut is subsampled and padded with zeros (type A of He et al. 2015)."""

    def __init__(self, in_width: int, width: int) -> None:
        super().__init__()
        self.stride, self.pad = width // in_width, (width - in_width) // 2
        self.conv1 = nn.Conv2d(in_width, width, 3, self.stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)

    def forward(self, features: Tensor) -> Tensor:
        out = self.bn2(self.conv2(self.bn1(self.conv1(features)).relu()))
        shortcut = F.pad(features[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, self.pad, self.pad))
        return F.relu(out + shortcut)


class CifarResNet(nn.Module):
    """Normalised images (B,3,32,32) to features (B,64). He et al. 2015, arXiv:1512.03385."""

    def __init__(self, depth: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        for index, (in_width, width) in enumerate(((16, 16), (16, 32), (32, 64))):
            rest = (PaddedBlock(width, width) for _ in range(depth - 1))
            self.add_module(f"layer{index + 1}", nn.Sequential(PaddedBlock(in_width, width), *rest))

    def forward(self, images: Tensor) -> Tensor:
        out = self.bn1(self.conv1(images)).relu()
        for index in (1, 2, 3):
            out = self.get_submodule(f"layer{index}")(out)
        return out.mean((2, 3))


def pretrained(name: str, folder: Path, task: Task, adapter: AnyAdapter | None = None) -> TaskModel:
    """A ``cifar_resnet`` or EfficientNet-Lite0 with the weights in ``folder``, and a head for ``task``."""
    if name == LITE0:
        spec = ModelSpec(backbone="timm/tf_efficientnet_lite0", weights="pretrained", adapter=adapter)
        return build_model(spec, {"target": task.classes}, image_size=task.size, seed=0).eval()
    depth, beginning = CIFAR_RESNETS[name]
    path = next(folder.glob(f"{beginning}-*.th"))
    state = torch.load(path, weights_only=True, map_location="cpu")["state_dict"]
    state = {key.removeprefix("module."): value for key, value in state.items()}
    linear = nn.Linear(64, 10)
    linear.load_state_dict({key: state.pop(f"linear.{key}") for key in ("weight", "bias")})
    network = CifarResNet(depth)
    network.load_state_dict(state)
    groups: dict[str, list[nn.Module | nn.Parameter]] = {
        key: [module] for key, module in network.named_children()
    }
    torch.manual_seed(0)
    model = TaskModel(Backbone(network, 64, groups, IMAGENET_MEAN_STD), {"target": len(task.classes)})
    if len(task.classes) == 10:
        model.heads["target"] = linear
    if adapter is not None:
        model.attach(adapter)
    return model.eval()


def fresh(name: str, task: Task, adapter: AnyAdapter | None = None, is_binary: bool = False) -> TaskModel:
    """A backbone of temper's from a random start."""
    spec = ModelSpec(backbone=name, adapter=adapter, is_binary=is_binary)
    return build_model(spec, {"target": task.classes}, image_size=task.size, seed=0).eval()


# --- training -----------------------------------------------------------------------------------


def fit(
    model: TaskModel,
    task: Task,
    steps: int,
    *,
    lr: float = 1e-3,
    threat: Threat | None = None,
    groups: Sequence[str] | None = None,
    is_balanced: bool = False,
) -> TaskModel:
    """``steps`` of AdamW on one cycle, within ``threat`` if given; ``groups``: what trains, or all."""
    set_trainable(model, groups or model.group_names, ("target",))
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=lr, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=lr, total_steps=steps)
    images, labels = (torch.from_numpy(part) for part in task.train)
    counts = torch.bincount(labels, minlength=len(task.classes)).double().clamp_min(1)
    weights = (1 / counts)[labels] if is_balanced else torch.ones(len(labels), dtype=torch.float64)
    generator = torch.Generator().manual_seed(0)
    for _ in range(steps):
        rows = torch.multinomial(weights, BATCH_SIZE, is_balanced, generator=generator)
        batch = images[rows].float() / 255
        if threat is not None:
            batch = _attacked(model, batch, labels[rows], threat, generator)
        for module, mode in train_modes(model):
            module.training = mode
        optimizer.zero_grad()
        F.cross_entropy(model(batch), labels[rows]).backward()
        optimizer.step()
        schedule.step()
    return model.eval()


def _attacked(
    model: TaskModel, images: Tensor, labels: Tensor, threat: Threat, generator: torch.Generator
) -> Tensor:
    attack: PGD | PatchPGD
    if threat.norm == "patch":
        attack = PatchPGD(eps=threat.eps, steps=5)
    else:
        attack = PGD(norm=threat.norm, eps=threat.eps, steps=3)
    with attack_mode(model):
        return attack.perturb(model, images, labels, generator)


class Function(nn.Module):
    """A model that is none of temper's: any network on images in [0,1], or in another range."""

    def __init__(self, network: nn.Module, change: Callable[[Tensor], Tensor] | None = None) -> None:
        super().__init__()
        self.network, self.change = network, change

    def forward(self, images: Tensor) -> Tensor:
        answered: Tensor = self.network(images if self.change is None else self.change(images))
        return answered
