"""What is known of a network before it is built."""

from dataclasses import dataclass
from typing import Literal

from temper.pretrained.pinned import PinnedFile

Place = Literal["here", "cache", "hub", "none"]
"""Where weights are: a package or file of this machine, a cache of downloads, a server, or nowhere."""


@dataclass(frozen=True)
class Network:
    """A backbone as a recipe names it, and the weights that ``model.weights: pretrained`` means for it."""

    name: str
    num_params: int | None
    """With its own classifier, where it has one; ``None``: known only to who builds it."""
    image_size: int | None
    """Side in pixels of the images that the weights were trained on, or that the network is made for."""
    licence: str | None = None
    """As those say who publish the weights."""
    torch_file: str | None = None
    """Name of the file in torch's cache of downloads."""
    hub_repo: str | None = None
    """Repository on the Hugging Face hub."""
    pinned: PinnedFile | None = None
    """A file that is known by its digest, and comes before any download."""
    categories: tuple[str, ...] | None = None
    """Classes of the weights' own classifier, where no other package knows them."""
    is_recommended: bool = False
