"""What a fit can start from: networks whose weights are on this machine, or what the user names."""

from dataclasses import dataclass

from temper.errors import UsageError
from temper.fitting.request import FitRequest
from temper.fitting.sizes import size_at_random, sizes_for
from temper.models.backbones import explain_unknown, is_known_backbone
from temper.pretrained import Network, cached_timm_networks, find_network, list_networks, locate

MAX_PARAMS = 30_000_000
"""Of a network that is tried without being asked for."""
MAX_NETWORKS = 3
SMALL = ("resnet20", "resnet8")
"""Where there are no weights, the better one first."""
RANDOM = "random"


@dataclass(frozen=True)
class Start:
    """A network to try, and the sizes to try it at."""

    backbone: str
    weights: str | None
    sizes: tuple[int, ...]


def find_starts(request: FitRequest, long_side: int) -> list[Start]:
    """The networks to try, the likeliest first; with ``request.backbone`` that one alone.

    Raises:
        UsageError: no such backbone, or weights without the network that they belong to.
        ModelError: ``TEMPER_WEIGHTS`` names no folder.
    """
    if request.backbone is not None:
        return [_named(request, request.backbone, long_side)]
    if request.weights not in (None, RANDOM):
        raise UsageError(f"--weights {request.weights}: name their network with --backbone")
    here = [] if request.weights == RANDOM else networks_here()
    own_size = () if request.size is None else (request.size,)
    starts = [
        Start(one.name, "pretrained", own_size or tuple(sizes_for(long_side, one.image_size))) for one in here
    ]
    return starts or [Start(name, None, own_size or (size_at_random(long_side),)) for name in SMALL]


def networks_here() -> list[Network]:
    """Those whose weights need no download and that a processor can train, recommended ones first."""
    known = {one.name: one for one in (*cached_timm_networks(), *list_networks())}
    here = [
        one
        for one in known.values()
        if locate(one).place in ("here", "cache") and (one.num_params or 0) <= MAX_PARAMS
    ]
    return sorted(here, key=lambda one: (not one.is_recommended, one.num_params or MAX_PARAMS))[:MAX_NETWORKS]


def _named(request: FitRequest, backbone: str, long_side: int) -> Start:
    """What the user asks for."""
    if not is_known_backbone(backbone):
        raise UsageError(f"--backbone: {explain_unknown(backbone)}")
    network = find_network(backbone)
    weights = request.weights
    if weights is None:
        has_weights = network is None or locate(network).place != "none"
        weights = "pretrained" if has_weights else None
    weights = None if weights == RANDOM else weights
    if request.size is not None:
        sizes: tuple[int, ...] = (request.size,)
    elif weights is None:
        sizes = (size_at_random(long_side),)
    else:
        sizes = tuple(sizes_for(long_side, network.image_size if network else None))
    return Start(backbone, weights, sizes)
