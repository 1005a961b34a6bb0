"""Networks that a run can start from, and where their weights are; nothing here imports torch."""

from temper.pretrained.network import Network
from temper.pretrained.networks import find_network, list_networks, search_networks
from temper.pretrained.places import Located, cached_timm_networks, locate
from temper.pretrained.torchvision_weights import TORCHVISION_WEIGHTS

__all__ = [
    "TORCHVISION_WEIGHTS",
    "Located",
    "Network",
    "cached_timm_networks",
    "find_network",
    "list_networks",
    "locate",
    "search_networks",
]
