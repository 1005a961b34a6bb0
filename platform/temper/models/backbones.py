"""Backbones by name: torchvision's, and small ResNets for small images."""

import difflib
from collections.abc import Callable
from dataclasses import dataclass

from torch import nn

from temper.errors import ModelError
from temper.models.small_resnet import preact_resnet18, resnet8, resnet20

IMAGENET_MEAN_STD = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
SMALL_MEAN_STD = ((0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
"""For the small networks, which start without anyone's weights: about the range of natural images."""

SMALL = {"resnet8": resnet8, "resnet20": resnet20, "preact_resnet18": preact_resnet18}
TORCHVISION = (
    "resnet18", "resnet34", "resnet50", "resnet101", "wide_resnet50_2", "resnext50_32x4d",
    "vgg11_bn", "vgg16_bn", "densenet121", "mobilenet_v2", "mobilenet_v3_small", "mobilenet_v3_large",
    "efficientnet_b0", "convnext_tiny", "vit_b_16", "vit_b_32",
)  # fmt: skip


@dataclass(frozen=True)
class Backbone:
    """A headless network: normalised images (B,3,H,W) to features (B, ``num_features``)."""

    module: nn.Module
    num_features: int
    groups: dict[str, list[nn.Module | nn.Parameter]]
    """Group name -> its modules and loose parameters, from the input to the features."""
    mean_std: tuple[tuple[float, ...], tuple[float, ...]]


def backbone_names() -> list[str]:
    """Every backbone that a recipe may name."""
    return [*SMALL, *TORCHVISION]


def build_backbone(name: str, image_size: int, *, pretrained: bool = False) -> Backbone:
    """A backbone with random weights, or with torchvision's pretrained ones.

    Raises:
        ModelError: unknown name; no pretrained weights for it, or they cannot be downloaded.
    """
    if name in SMALL:
        if pretrained:
            raise ModelError(
                f"model.weights: there are no pretrained weights for '{name}'; use pretrain, a file or a run"
            )
        small = SMALL[name]()
        return Backbone(small, small.num_features, small.groups(), SMALL_MEAN_STD)
    if name not in TORCHVISION:
        close = difflib.get_close_matches(name, backbone_names(), 1)
        hint = f" (did you mean '{close[0]}'?)" if close else ""
        raise ModelError(
            f"model.backbone: no backbone '{name}'{hint}. Backbones: {', '.join(backbone_names())}"
        )
    network = _torchvision_network(name, image_size, pretrained)
    num_features = _cut_classifier(network)
    return Backbone(network, num_features, _torchvision_groups(network), IMAGENET_MEAN_STD)


def _torchvision_network(name: str, image_size: int, pretrained: bool) -> nn.Module:
    import torchvision  # twice as long to import as torch itself, and the small networks need none of it

    build: Callable[..., nn.Module] = getattr(torchvision.models, name)
    options = {}
    if name.startswith("vit"):
        if image_size % 16 != 0 or (name == "vit_b_32" and image_size % 32 != 0):
            raise ModelError(f"data.image_size: {name} needs a multiple of its patch size, got {image_size}")
        options["image_size"] = image_size
        if pretrained and image_size != 224:
            raise ModelError(
                f"data.image_size: the pretrained weights of {name} are for 224 px, got {image_size}"
            )
    try:
        return build(weights="DEFAULT" if pretrained else None, **options)
    except OSError as problem:
        raise ModelError(
            f"model.weights: the pretrained weights of '{name}' could not be downloaded ({problem}); "
            "download them elsewhere and give the file's path"
        ) from None


def _cut_classifier(network: nn.Module) -> int:
    """Replace the last linear layer by nothing; return the width of what went into it."""
    name, last = [item for item in network.named_modules() if isinstance(item[1], nn.Linear)][-1]
    assert isinstance(last, nn.Linear)
    parent, _, leaf = name.rpartition(".")
    setattr(network.get_submodule(parent), leaf, nn.Identity())
    return last.in_features


def _torchvision_groups(network: nn.Module) -> dict[str, list[nn.Module | nn.Parameter]]:
    """Children of the network as groups; a long body (``features``, an encoder) by its own blocks."""
    groups: dict[str, list[nn.Module | nn.Parameter]] = {}
    stem: list[nn.Module | nn.Parameter] = list(network.parameters(recurse=False))
    for name, child in network.named_children():
        if name == "features" and isinstance(child, nn.Sequential):
            for index, block in enumerate(_feature_blocks(child)):
                groups[f"block{index + 1}"] = list(block)
        elif name == "encoder":
            stem += list(child.parameters(recurse=False))
            layers = child.get_submodule("layers")
            for index, layer in enumerate(layers.children()):
                groups[f"block{index + 1}"] = [layer]
            groups[f"block{len(groups)}"].append(child.get_submodule("ln"))
        elif name.startswith("layer"):
            groups[name] = [child]
        elif not groups:
            stem.append(child)
        else:
            groups[list(groups)[-1]].append(child)
    named = {"stem": stem, **groups}
    return {name: parts for name, parts in named.items() if any(_has_parameters(part) for part in parts)}


def _feature_blocks(features: nn.Sequential) -> list[list[nn.Module]]:
    """Cut a flat list of layers after each pooling (VGG); a list of blocks is taken as it is."""
    layers = list(features.children())
    if not any(isinstance(layer, nn.MaxPool2d) for layer in layers):
        return [[layer] for layer in layers]
    blocks: list[list[nn.Module]] = [[]]
    for layer in layers:
        blocks[-1].append(layer)
        if isinstance(layer, nn.MaxPool2d):
            blocks.append([])
    return [block for block in blocks if any(_has_parameters(layer) for layer in block)]


def _has_parameters(part: nn.Module | nn.Parameter) -> bool:
    return isinstance(part, nn.Parameter) or any(True for _ in part.parameters())
