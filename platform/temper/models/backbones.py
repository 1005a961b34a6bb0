"""Backbones by name: torchvision's, timm's, and small networks for small images."""

import difflib
from collections.abc import Callable

from temper.errors import ModelError
from temper.models import timm_networks, torchvision_networks
from temper.models.backbone import Backbone, MeanStd
from temper.models.cifar_resnet import (
    CifarResNet,
    cifar_resnet20,
    cifar_resnet32,
    cifar_resnet44,
    cifar_resnet56,
)
from temper.models.pinned_weights import load_pinned, pinned_file
from temper.models.small_resnet import SmallResNet, preact_resnet18, resnet8, resnet20
from temper.models.small_vit import SmallViT, small_vit
from temper.models.torchvision_networks import IMAGENET_MEAN_STD, TORCHVISION
from temper.models.wide_resnet import (
    WideResNet,
    wide_resnet16_4,
    wide_resnet28_10,
    wide_resnet34_10,
    wide_resnet34_20,
    wide_resnet70_16,
)
from temper.pretrained import find_network

__all__ = [
    "Backbone",
    "backbone_names",
    "build_backbone",
    "classifier_path",
    "explain_unknown",
    "is_known_backbone",
    "pretrained_categories",
]

SMALL_MEAN_STD: MeanStd = ((0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
"""For the small networks, which start without anyone's weights: about the range of natural images."""
RAW_MEAN_STD: MeanStd = ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
"""For the Wide ResNets: the checkpoints that they can read are of networks on images in [0,1]."""

RESNETS = {"resnet8": resnet8, "resnet20": resnet20, "preact_resnet18": preact_resnet18}
WIDE_RESNETS = {
    "wide_resnet16_4": wide_resnet16_4,
    "wide_resnet28_10": wide_resnet28_10,
    "wide_resnet34_10": wide_resnet34_10,
    "wide_resnet34_20": wide_resnet34_20,
    "wide_resnet70_16": wide_resnet70_16,
}
CIFAR_RESNETS: dict[str, Callable[[], CifarResNet]] = {
    "cifar_resnet20": cifar_resnet20,
    "cifar_resnet32": cifar_resnet32,
    "cifar_resnet44": cifar_resnet44,
    "cifar_resnet56": cifar_resnet56,
}
"""Their checkpoints are of images normalised as for ImageNet."""
SMALL = (*RESNETS, *CIFAR_RESNETS, *WIDE_RESNETS, "small_vit")


def backbone_names() -> list[str]:
    """Every backbone that a recipe may name, except timm's, whose names are ``timm/<name>``."""
    return [*SMALL, *TORCHVISION]


def is_known_backbone(name: str) -> bool:
    """Whether a recipe may name it. Of timm's only the form is checked: importing timm takes seconds."""
    is_of_timm = name.startswith(timm_networks.PREFIX) and name != timm_networks.PREFIX
    return is_of_timm or name in SMALL or name in TORCHVISION


def explain_unknown(name: str) -> str:
    """Why ``name`` is no backbone, and which there are."""
    close = difflib.get_close_matches(name, backbone_names(), 1)
    hint = f" (did you mean '{close[0]}'?)" if close else ""
    return (
        f"no backbone '{name}'{hint}. Backbones: {', '.join(backbone_names())}, "
        f"or {timm_networks.PREFIX}<name>"
    )


def build_backbone(name: str, image_size: int, *, pretrained: bool = False) -> Backbone:
    """A backbone with random weights, or with pretrained ones: pinned, torchvision's or timm's.

    Raises:
        ModelError: unknown name; no pretrained weights for it, or they cannot be downloaded; images of a
            size that it cannot take.
    """
    if name.startswith(timm_networks.PREFIX):
        return timm_networks.build_timm(name, image_size, pretrained=pretrained)
    if name in TORCHVISION:
        return torchvision_networks.build_torchvision(name, image_size, pretrained=pretrained)
    if name not in SMALL:
        raise ModelError(f"model.backbone: {explain_unknown(name)}")
    path = pinned_file(name, download=True) if pretrained else None
    if pretrained and path is None:
        raise ModelError(
            f"model.weights: there are no pretrained weights for '{name}'; use pretrain, a file or a run, "
            "or another backbone: `temper models` lists them"
        )
    small = _build_small(name, image_size)
    classifier = load_pinned(small, path) if path is not None else None
    return Backbone(small, small.num_features, small.groups(), _mean_std(name), classifier)


def _build_small(name: str, image_size: int) -> SmallResNet | CifarResNet | WideResNet | SmallViT:
    if name == "small_vit":
        return small_vit(image_size)
    builders: dict[str, Callable[[], SmallResNet | CifarResNet | WideResNet]] = {
        **RESNETS,
        **CIFAR_RESNETS,
        **WIDE_RESNETS,
    }
    return builders[name]()


def _mean_std(name: str) -> MeanStd:
    if name in CIFAR_RESNETS:
        return IMAGENET_MEAN_STD
    return RAW_MEAN_STD if name in WIDE_RESNETS else SMALL_MEAN_STD


def classifier_path(name: str) -> str:
    """Name that the classifier has in weights files of this backbone; empty if it has none, or several.

    Raises:
        ModelError: unknown name, or timm is not installed.
    """
    if name.startswith(timm_networks.PREFIX):
        return timm_networks.classifier_path(name)
    if name in TORCHVISION:
        return torchvision_networks.classifier_path(name)
    if name not in SMALL:
        raise ModelError(f"model.backbone: {explain_unknown(name)}")
    return "head" if name == "small_vit" else "fc" if name in WIDE_RESNETS else "linear"


def pretrained_categories(name: str) -> list[str] | None:
    """The class names of the pretrained classifier of a backbone, without a download; ``None``: it has none.

    Raises:
        ModelError: timm is not installed, or has no such network.
    """
    if name.startswith(timm_networks.PREFIX):
        return timm_networks.pretrained_categories(name)
    if name in TORCHVISION:
        return torchvision_networks.pretrained_categories(name)
    network = find_network(name)
    return list(network.categories) if network is not None and network.categories else None
