"""torchvision's classification networks without their classifiers."""

from typing import Any, TypeVar, cast

from torch import nn

from temper.errors import ModelError
from temper.models.backbone import Backbone, MeanStd, NoClassifier, groups_by_cuts, not_a_multiple
from temper.models.pinned_weights import HELP
from temper.pretrained import TORCHVISION_WEIGHTS

IMAGENET_MEAN_STD: MeanStd = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))

TORCHVISION = tuple(TORCHVISION_WEIGHTS)

CLASSIFIERS = {
    "alexnet": "classifier.6", "convnext": "classifier.2", "densenet": "classifier",
    "efficientnet": "classifier.1", "googlenet": "fc", "inception": "fc", "maxvit": "classifier.5",
    "mnasnet": "classifier.1", "mobilenet_v2": "classifier.1", "mobilenet_v3": "classifier.3",
    "regnet": "fc", "resnet": "fc", "resnext": "fc", "shufflenet": "fc", "squeezenet": "classifier.1",
    "swin": "head", "vgg": "classifier.6", "vit": "heads.head", "wide_resnet": "fc",
}  # fmt: skip
"""Beginning of a network's name -> name of its classifier."""

SMALLEST = {
    "alexnet": 63, "convnext": 32, "densenet": 29, "googlenet": 15, "inception": 75, "squeezenet1_0": 21,
    "squeezenet1_1": 17, "swin": 4, "vgg": 32,
}  # fmt: skip
"""Beginning of a name -> pixels below which nothing is left before the features (measured)."""

MULTIPLES = {"maxvit": 224, "vit_h_14": 14, "vit_b_16": 16, "vit_l_16": 16, "vit_b_32": 32, "vit_l_32": 32}
"""Patch sizes; of MaxViT 32, the stride of its last stage, times 7, the side of its windows."""

CUTS = {
    "convnext": ("features.1", "features.2", "features.4", "features.6"),
    "densenet": tuple(f"features.denseblock{n}" for n in (1, 2, 3, 4)),
    "efficientnet": tuple(f"features.{n}" for n in range(1, 9)),
    "googlenet": ("conv2", "inception3a", "inception4a", "inception5a"),
    "inception": ("Conv2d_3b_1x1", "Mixed_5b", "Mixed_6a", "Mixed_7a"),
    "maxvit": (*(f"blocks.{n}" for n in range(4)), "classifier"),
    "mnasnet": tuple(f"layers.{n}" for n in range(8, 15)),
    "mobilenet_v2": tuple(f"features.{n}" for n in (2, 4, 7, 11, 14, 18)),
    "mobilenet_v3_large": (*(f"features.{n}" for n in (2, 4, 7, 11, 13, 16)), "classifier"),
    "mobilenet_v3_small": (*(f"features.{n}" for n in (1, 2, 4, 7, 9, 12)), "classifier"),
    "regnet": tuple(f"trunk_output.block{n}" for n in (1, 2, 3, 4)),
    "resnet": ("layer1", "layer2", "layer3", "layer4"),
    "resnext": ("layer1", "layer2", "layer3", "layer4"),
    "shufflenet": ("stage2", "stage3", "stage4", "conv5"),
    "swin": ("features.1", "features.2", "features.4", "features.6"),
    "wide_resnet": ("layer1", "layer2", "layer3", "layer4"),
}
"""Beginning of a name -> the modules with which groups begin: stages of one width or resolution."""


def build_torchvision(name: str, image_size: int, *, pretrained: bool) -> Backbone:
    """One of ``TORCHVISION`` without its classifier.

    Raises:
        ModelError: images of a size that it cannot take; pretrained weights that cannot be downloaded.
    """
    _check_size(name, image_size, pretrained)
    network = _build(name, image_size, pretrained)
    path = classifier_path(name)
    classifier = network.get_submodule(path)
    network.set_submodule(path, NoClassifier())
    is_linear = isinstance(classifier, nn.Linear)
    num_features = cast(int, classifier.in_features if is_linear else classifier.in_channels)
    return Backbone(
        network,
        num_features,
        groups_by_cuts(network, _cuts(name, network)),
        _mean_std(name),
        # SqueezeNet's classifier ends in a ReLU, so that no linear head is the same function.
        classifier if pretrained and isinstance(classifier, nn.Linear) else None,
    )


def classifier_path(name: str) -> str:
    """Name of the module that is the classifier of a network."""
    return _by_beginning(CLASSIFIERS, name, "")


def pretrained_categories(name: str) -> list[str] | None:
    """The classes that the pretrained network tells apart, if a linear head can; downloads nothing.

    They are those of ImageNet, where two names occur twice ("crane" and "maillot").
    """
    return None if name.startswith("squeezenet") else list(_weights(name).meta["categories"])


_T = TypeVar("_T")


def _by_beginning(table: dict[str, _T], name: str, default: _T) -> _T:
    return next((value for beginning, value in table.items() if name.startswith(beginning)), default)


def _weights(name: str) -> Any:
    import torchvision  # twice as long to import as torch itself, and the small networks need none of it

    return torchvision.models.get_model_weights(name).DEFAULT


def _mean_std(name: str) -> MeanStd:
    settings = _weights(name).transforms.keywords
    mean, std = IMAGENET_MEAN_STD
    return tuple(settings.get("mean", mean)), tuple(settings.get("std", std))


def _check_size(name: str, image_size: int, pretrained: bool) -> None:
    smallest, multiple = _by_beginning(SMALLEST, name, 1), _by_beginning(MULTIPLES, name, 1)
    if image_size < smallest:
        raise ModelError(f"data.image_size: {name} needs at least {smallest} px, got {image_size}")
    if image_size % multiple != 0:
        raise not_a_multiple(name, multiple, image_size)
    if pretrained and multiple > 1:
        theirs = _weights(name).transforms.keywords["crop_size"]
        if image_size != theirs:
            raise ModelError(
                f"data.image_size: the pretrained weights of {name} are for {theirs} px, got {image_size}"
            )


def _build(name: str, image_size: int, pretrained: bool) -> nn.Module:
    import torchvision

    options: dict[str, Any] = {}
    if name.startswith("vit"):
        options = {"image_size": image_size}
    elif name.startswith("maxvit") and not pretrained:
        options = {"input_size": (image_size, image_size)}
    elif name in ("googlenet", "inception_v3"):
        # The pretrained weights expect their input rescaled; so it always is, for a file of them as well.
        options = {"transform_input": True, "init_weights": False}
        if not pretrained:  # theirs come with auxiliary classifiers, whatever one asks for
            options["aux_logits"] = False
    try:
        network: nn.Module = torchvision.models.get_model(
            name, weights="DEFAULT" if pretrained else None, **options
        )
    except (OSError, RuntimeError) as problem:  # RuntimeError: a file that is not what it should be
        raise ModelError(
            f"model.weights: the pretrained weights of '{name}' could not be downloaded ({problem}); "
            f"download {_weights(name).url} elsewhere and set model.weights to the file's path, or to the "
            f"folder of an earlier run of this backbone, or to null for a random start; {HELP}"
        ) from None
    if name == "inception_v3":
        for part, nothing in (("aux_logits", False), ("AuxLogits", None)):
            setattr(network, part, nothing)
    return network


def _cuts(name: str, network: nn.Module) -> tuple[str, ...]:
    if name.startswith("vit"):
        blocks = network.get_submodule("encoder.layers").named_children()
        return tuple(f"encoder.layers.{name}" for name, _ in blocks)
    if cuts := _by_beginning(CUTS, name, ()):
        return cuts
    # AlexNet, VGG and SqueezeNet are lists of layers, with a pooling where the resolution falls.
    layers = list(network.get_submodule("features").children())
    pooled = [index for index, layer in enumerate(layers) if isinstance(layer, nn.MaxPool2d)]
    starts = (
        next((i for i in range(pool, len(layers)) if any(True for _ in layers[i].parameters())), None)
        for pool in pooled
    )
    return (*(f"features.{start}" for start in starts if start is not None), "classifier")
