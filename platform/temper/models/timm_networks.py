"""Networks of the package timm, named ``timm/<name>``, without their classifiers."""

import difflib
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from temper.errors import ModelError
from temper.models.backbone import (
    Backbone,
    Groups,
    NoClassifier,
    groups_by_cuts,
    groups_by_name,
    not_a_multiple,
)
from temper.models.pinned_weights import HELP, load_pinned, pinned_file
from temper.pretrained import Network

PREFIX = "timm/"
SPDX = {
    "apache-2.0": "Apache-2.0",
    "bsd-3-clause": "BSD-3-Clause",
    "cc-by-nc-4.0": "CC-BY-NC-4.0",
    "mit": "MIT",
}
"""Licences as timm writes them, and as their identifiers are written."""


def build_timm(name: str, image_size: int, *, pretrained: bool) -> Backbone:
    """A network of timm; ``name`` is ``timm/`` and what timm calls it.

    Raises:
        ModelError: timm is not installed; it knows no such network, or has no weights for it; images of a
            size that the network cannot take; weights that cannot be downloaded, or are damaged.
    """
    timm, config = _config(name)
    file = pinned_file(name) if pretrained else None
    is_download = pretrained and file is None
    options: dict[str, Any] = {}
    if config.fixed_input_size and config.input_size[-1] != image_size:
        options["img_size"] = image_size
    try:
        network: nn.Module = timm.create_model(name.removeprefix(PREFIX), pretrained=is_download, **options)
    except OSError as problem:  # of the hub, and of all that is between it and us
        raise _not_downloaded(name, config, problem) from None
    except Exception as problem:  # each family of timm has its own ways to refuse a size or a download
        raise _refusal(name, image_size, config, problem, is_download) from None
    _check_patches(network, name, image_size)
    classifier = _cut_classifier(network, config.classifier)
    num_features = _width(network, name, image_size, config)
    if file is not None:
        classifier = load_pinned(network, file)
    if not (isinstance(classifier, nn.Linear) and classifier.in_features == num_features and pretrained):
        classifier = None
    return Backbone(
        network,
        num_features,
        _groups(network),
        (tuple(config.mean), tuple(config.std)),
        classifier,
    )


def classifier_path(name: str) -> str:
    """Name of the module that is the classifier of a network; empty if it has none, or several."""
    path = _config(name)[1].classifier
    return path if isinstance(path, str) else ""


def pretrained_categories(name: str) -> list[str] | None:
    """The classes that the pretrained network tells apart, where it has one classifier; downloads nothing."""
    timm, config = _config(name)
    if not config.num_classes or not classifier_path(name):
        return None
    subset = timm.data.infer_imagenet_subset({"num_classes": config.num_classes})
    if subset is None:
        return [str(index) for index in range(config.num_classes)]
    descriptions: list[str] = timm.data.ImageNetInfo(subset).label_descriptions()
    return descriptions


def list_pretrained() -> list[Network]:
    """Every network that timm has pretrained weights for; their parameters are not counted.

    Raises:
        ModelError: timm is not installed.
    """
    timm = _timm("timm/<name>")
    configs = {name: timm.get_pretrained_cfg(name) for name in timm.list_models()}
    return [
        Network(
            f"{PREFIX}{name}",
            None,
            config.input_size[-1],
            SPDX.get(config.license, config.license),
            torch_file=None if config.hf_hub_id or not config.url else config.url.rpartition("/")[2],
            hub_repo=config.hf_hub_id or None,
        )
        for name, config in configs.items()
        if config is not None and config.has_weights
    ]


def _timm(name: str) -> ModuleType:
    """The package, which a backbone ``name`` needs."""
    try:
        import timm
    except ImportError:
        raise ModelError(
            f"model.backbone: '{name}' needs the package timm: pip install 'temper[timm]'"
        ) from None
    return timm


def _config(name: str) -> tuple[ModuleType, Any]:
    """The package, and what it knows of the network's pretrained weights."""
    timm = _timm(name)
    theirs = name.removeprefix(PREFIX)
    config = timm.get_pretrained_cfg(theirs) if timm.is_model(theirs) else None
    if config is None:
        known = [*timm.list_models(), *timm.list_pretrained()]
        close = [f"'{PREFIX}{other}'" for other in difflib.get_close_matches(theirs, known, 3)]
        hint = f"did you mean {' or '.join(close)}? " if close else ""
        raise ModelError(
            f"model.backbone: timm has no network '{theirs}'; {hint}timm.list_models() lists all"
        )
    return timm, config


def _not_downloaded(name: str, config: Any, problem: OSError) -> ModelError:
    reason = " ".join(str(problem).split())[:300]
    return ModelError(
        f"model.weights: the pretrained weights of '{name}' could not be downloaded ({reason}); download "
        f"{config.hf_hub_id or config.url} elsewhere and set model.weights to the file's path, or to null "
        f"for a random start; {HELP}"
    )


def _check_patches(network: nn.Module, name: str, image_size: int) -> None:
    """See that patches cover the whole image: timm leaves out what is over at the border."""
    from timm.layers.patch_embed import PatchEmbed

    patches = getattr(network, "patch_embed", None)
    if not isinstance(patches, PatchEmbed) or patches.dynamic_img_pad:
        return
    size = patches.patch_size[0]
    if image_size % size:
        raise not_a_multiple(f"'{name}'", size, image_size)


def _refusal(
    name: str, image_size: int, config: Any, problem: Exception, pretrained: bool = False
) -> ModelError:
    reason = f"{type(problem).__name__}: {' '.join(str(problem).split())[:300]}"
    advice = f"; its weights are for {config.input_size[-1]} px"
    if pretrained:
        advice += ". If they cannot be downloaded here, download them elsewhere and give the file's path"
    return ModelError(
        f"model.backbone, data.image_size: '{name}' could not be built for {image_size} px ({reason}){advice}"
    )


def _cut_classifier(network: nn.Module, paths: str | tuple[str, ...] | None) -> nn.Module | None:
    """Take timm's own classifier out, and mark its place; the classifier, if it was a single one."""
    classifier: Any = network.get_classifier()  # type: ignore[operator]
    network.reset_classifier(0)  # type: ignore[operator]
    for path in (paths,) if isinstance(paths, str) else paths or ():
        parts = dict(network.named_modules())
        if isinstance(parts.get(path), nn.Identity):
            network.set_submodule(path, NoClassifier())
    return classifier if isinstance(classifier, nn.Module) else None


def _width(network: nn.Module, name: str, image_size: int, config: Any) -> int:
    """The number of features, from one image: many networks refuse a size no sooner than that."""
    mode = network.training
    try:
        with torch.no_grad():
            features: Tensor = network.eval()(torch.zeros(1, 3, image_size, image_size))
    except Exception as problem:  # see above
        raise _refusal(name, image_size, config, problem) from None
    finally:
        network.train(mode)
    if features.ndim != 2:
        raise ModelError(
            f"model.backbone: '{name}' returns features {tuple(features.shape)}, not (images, features)"
        )
    return features.shape[1]


def _groups(network: nn.Module) -> Groups:
    """Stages or blocks as timm itself groups them for its learning rates by depth."""
    from timm.models import group_parameters

    matcher = getattr(network, "group_matcher", None)
    if matcher is not None:
        depths: dict[str, int] = group_parameters(network, matcher(coarse=True), reverse=True)
        if len(set(depths.values())) > 1:
            order = sorted(set(depths.values()))
            titles = {depth: f"block{number}" if number else "stem" for number, depth in enumerate(order)}
            groups = groups_by_name(network, lambda name: titles[depths[name]])
            return {title: groups[title] for title in titles.values()}
    return groups_by_cuts(network, [name for name, _ in network.named_children()])
