"""Where the weights of a network are."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from temper.pretrained.caches import hub_cache, torch_checkpoints
from temper.pretrained.network import Network, Place

WEIGHT_FILES = ("model.safetensors", "pytorch_model.bin")
"""Under which names timm keeps weights on the hub."""


@dataclass(frozen=True)
class Located:
    """A network, and where its weights are."""

    network: Network
    place: Place
    path: Path | None
    """Of the file, where it is on this machine."""


def locate(network: Network) -> Located:
    """Look for the weights of ``network``, in the order in which a run would take them.

    Names and places are looked at, contents are not: those are checked when a run starts.

    Raises:
        ModelError: ``TEMPER_WEIGHTS`` names no folder.
    """
    if network.pinned is not None and (path := network.pinned.find()):
        is_download = path.parent == torch_checkpoints()
        return Located(network, "cache" if is_download else "here", path)
    if network.torch_file is not None and (path := torch_checkpoints() / network.torch_file).is_file():
        return Located(network, "cache", path)
    if network.hub_repo is not None and (found := _in_hub_cache(network.hub_repo)):
        return Located(network, "cache", found)
    has_server = network.torch_file or network.hub_repo or (network.pinned and network.pinned.url)
    return Located(network, "hub" if has_server else "none", None)


def cached_timm_networks() -> Iterator[Network]:
    """Networks of timm whose weights the hub's cache has; of them no more is known than their names."""
    for folder in sorted(hub_cache().glob("models--timm--*")):
        name = "timm/" + folder.name.removeprefix("models--timm--")
        if _in_hub_cache(name):
            yield Network(name, None, None, hub_repo=name)


def _in_hub_cache(repo: str) -> Path | None:
    """The weights file of the revision that ``main`` was when it was downloaded."""
    folder = hub_cache() / f"models--{repo.replace('/', '--')}"
    try:
        revision = (folder / "refs" / "main").read_text(encoding="utf-8").strip()
    except OSError:
        return None
    files = (folder / "snapshots" / revision / name for name in WEIGHT_FILES)
    return next((file for file in files if file.is_file()), None)
