"""Whether a perturbed image obeys a threat model, by our own measure."""

import torch
from torch import Tensor

from temper.attacks import attacked_channels, is_grey, norms
from temper.attacks.patches import patch_side
from temper.spec import Geometry, Threat

TOLERANCE = 1e-5
"""Distance by which float arithmetic may leave the ball (in L1 and L2, sums over all pixels, times eps, if
that is above 1); anything farther is not counted."""
SAME = 1e-6
"""Values of a pixel that differ by less are the same."""


def is_valid(clean: Tensor, perturbed: Tensor, threat: Threat) -> Tensor:
    """(B,) bool: finite, in [0,1] and within eps of the clean image, up to float error; grey, if it must be.

    What a semantic change may be no distance can tell: its members make images from parameters in range.
    """
    if threat.is_grey:
        alike, threat = is_grey(clean) & is_grey(perturbed), threat.model_copy(update={"channels": "colour"})
        before, after = (attacked_channels(images, "grey") for images in (clean, perturbed))
        return alike & is_valid(before, after, threat)
    flat = perturbed.flatten(1)
    finite = flat.isfinite().all(1)
    in_bounds = ((flat >= -TOLERANCE) & (flat <= 1 + TOLERANCE)).all(1)
    if threat.norm == "semantic":
        return finite & in_bounds
    if threat.norm == "patch":
        # A square can't reach out of the image, so none is wider than its shorter side.
        allowed = patch_side(threat.eps, *clean.shape[-2:])
        return finite & in_bounds & (sides_of_change(clean, perturbed) <= allowed)
    slack = TOLERANCE * max(1.0, threat.eps) if threat.norm in ("l1", "l2") else TOLERANCE
    return finite & in_bounds & (distances(clean, perturbed, threat.norm) <= threat.eps + slack)


def distances(clean: Tensor, perturbed: Tensor, norm: Geometry) -> Tensor:
    """(B,) distances in pixel units of [0,1]; in L0 the number of pixels that changed in any channel.

    Of a semantic change, the Linf distance; of a patch, its share of the image's area.
    """
    if norm == "patch":
        return sides_of_change(clean, perturbed).float() ** 2 / clean[0, 0].numel()
    if norm == "l0":
        return ((perturbed - clean).abs() > SAME).any(1).flatten(1).sum(1).float()
    return norms.distances("linf" if norm == "semantic" else norm, perturbed, clean)


def sides_of_change(clean: Tensor, perturbed: Tensor) -> Tensor:
    """(B,) int64: side in pixels of the smallest square that holds every pixel that changed in any channel.

    Computed from the images alone, whatever an attack says of its place.
    """
    changed = ((perturbed - clean).abs() > SAME).any(1)
    extents = []
    for along in (changed.any(2), changed.any(1)):
        first = along.int().argmax(1)
        last = along.shape[1] - 1 - along.flip(1).int().argmax(1)
        extents.append(torch.where(along.any(1), last - first + 1, 0))
    return torch.stack(extents).amax(0)


def margins(logits: Tensor, labels: Tensor) -> Tensor:
    """(B,) logit of the true class minus the best other one; negative where misclassified."""
    true = logits.gather(1, labels[:, None]).squeeze(1)
    return true - logits.scatter(1, labels[:, None], -torch.inf).amax(1)
