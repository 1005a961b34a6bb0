"""A gate on the attacks: an adversarial example that is known to be there must be found."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from temper.attacks import Member
from temper.attacks.patches import corners_of, masks_at, patch_side, shares_of_places
from temper.evaluation.gates.attackers import ball_norm
from temper.evaluation.gates.base import Scene, doubt, gate
from temper.evaluation.gates.limits import kinds_of
from temper.evaluation.members.pixels import pixels_changed
from temper.evaluation.threats import is_valid, margins
from temper.records import GateRecord
from temper.spec import Threat

NUM_PLANTED = 8
MIN_FOUND = 0.85
"""Share of planted examples that a suite must find: one of eight may escape, as minimum-norm attacks may
stop just short of a boundary."""

REACH = 0.6
"""The planted class wins at this share of the farthest point of the ball in the planted direction."""

OWN_PART = 0.1
"""Of the model's own change from its clean answer, beside the ramp: with all of it, a single step follows
the model instead, and finds nothing where the model is robust."""

USUAL_MARGIN = 5.0
"""Of logits, to which the model's are scaled: that the cross-entropy saturates on a very sure model is for
other gates; this one sees whether attacks work."""

TRIES = 6
"""Times that the slope is doubled until the model no longer drowns it."""


class Planted(nn.Module):
    """``model`` with a ramp of its own beside each of the ``images`` (K,3,H,W), up which a wrong class wins.

    The ramp rises along random signs, each pointing where there is room in [0,1]. Which image a point
    belongs to is told by the distance, so points may come in any order and number.
    """

    def __init__(
        self, model: nn.Module, images: Tensor, labels: Tensor, threat: Threat, generator: torch.Generator
    ) -> None:
        super().__init__()
        self.model, self.images, self.is_patch = model, images, threat.norm == "patch"
        with torch.no_grad():
            logits = model(images)
        self.scale = float((margins(logits, labels).median() / USUAL_MARGIN).clamp_min(1e-12))
        self.clean = logits / self.scale
        # The likeliest wrong class: the cross-entropy's gradient hardly sees the others.
        self.wrong = logits.scatter(1, labels[:, None], -torch.inf).argmax(1)
        signs = torch.empty_like(images).bernoulli_(0.5, generator=generator) * 2 - 1
        self.signs = torch.where((images - 0.5).abs() < 0.25, signs, (0.5 - images).sign())
        self.farthest = farthest(images, self.signs, threat, generator)
        reach = ((self.farthest - images) * self.signs).flatten(1).sum(1)
        self.slope = margins(self.clean, labels).clamp_min(1.0) / (REACH * reach).clamp_min(1e-12)

    def forward(self, points: Tensor) -> Tensor:
        with torch.no_grad():
            rows = self._nearest(points)
        along = ((points - self.images[rows]) * self.signs[rows]).flatten(1).sum(1)
        change = self.model(points) / self.scale - self.clean[rows]
        logits = self.clean[rows] + OWN_PART * change
        planted = F.one_hot(self.wrong[rows], logits.shape[1]) * (self.slope[rows] * along)[:, None]
        answered: Tensor = logits + planted
        return answered

    def _nearest(self, points: Tensor) -> Tensor:
        """(B,) int64: which image each point belongs to. A patch moves a point far, but in few pixels."""
        if self.is_patch:
            return torch.stack([pixels_changed(image, points) for image in self.images], 1).argmin(1)
        return torch.cdist(points.flatten(1), self.images.flatten(1)).argmin(1)


def farthest(
    images: Tensor, signs: Tensor, threat: Threat, generator: torch.Generator | None = None
) -> Tensor:
    """The point of each image's ball, clipped to [0,1], at its edge along ``signs`` (B,3,H,W).

    Of patches, the one at a random place.
    """
    if threat.norm == "patch":
        side = patch_side(threat.eps, *images.shape[-2:])
        masks = masks_at(corners_of(shares_of_places(images, generator), 0, side, images), side, images)
        return (images + masks * signs).clamp(0, 1)
    num_pixels = images[0].numel()
    parts = {"linf": 1.0, "l2": math.sqrt(num_pixels), "l1": float(num_pixels)}[ball_norm(threat)]
    step = threat.eps / parts
    return (images + step * signs).clamp(0, 1)


def told_apart(threat: Threat, images: Tensor) -> Threat:
    """``threat`` with its eps made small enough that no point is nearer to another of the ``images``."""
    if len(images) < 2:
        return threat
    if threat.norm == "patch":
        num_pixels = images[0, 0].numel()
        least = min(
            int(pixels_changed(image, images[:index]).min()) for index, image in enumerate(images) if index
        )
        return threat.model_copy(update={"eps": min(threat.eps, max(0, least - 1) / 2 / num_pixels)})
    nearest = float(torch.pdist(images.flatten(1)).min()) / 2
    per_eps = images[0].numel() ** 0.5 if threat.norm == "linf" else 1.0
    return threat.model_copy(update={"eps": min(threat.eps, 0.99 * nearest / per_eps)})


def has_room(threat: Threat, images: Tensor) -> bool:
    """Whether anything can change."""
    if threat.norm == "patch":
        return patch_side(threat.eps, *images.shape[-2:]) > 0
    return threat.eps > 0


def planted_found(scene: Scene) -> GateRecord:
    """The suite finds what is planted: each example by at least one of its attacks that follow gradients.

    A single attack proves nothing: one step of the full eps flies past examples on a steep network, and that
    is why there are others.
    """
    name = "planted adversarial"
    chosen = scene.some(scene.found.clean.correct, min(NUM_PLANTED, scene.batching.batch_size))
    images, labels = scene.pixels(chosen)
    threat = told_apart(scene.main.threat, images)
    if len(labels) == 0 or not has_room(threat, images):
        return gate(name, True, "there was no image, or no room, to plant one", "")
    planted = Planted(scene.held.folded, images, labels, threat, scene.generator("planted")).eval()
    there = _plant(planted, labels)
    if not there.any():
        return gate(name, True, "nothing could be planted: the model drowns any other signal", "")
    found, listed = _search(scene, planted, labels, threat, there)
    if not listed:
        return gate(name, True, "no attack of the suite follows gradients, so none was tried", "")
    share = float(found[there].double().mean())
    seen = f"the suite found {100 * share:.0f} % of the {int(there.sum())} planted ({', '.join(listed)})"
    return doubt(
        scene,
        name,
        share >= MIN_FOUND,
        seen,
        ": it misses adversarial examples that are there. Fix the attack that finds too few, or use a "
        "stronger suite (standard, full)",
    )


def _search(
    scene: Scene, planted: Planted, labels: Tensor, threat: Threat, there: Tensor
) -> tuple[Tensor, list[str]]:
    """(K,) bool: what the suite found; and how much of it each kind of attack found, in words.

    The same attack with other settings is for what is still missing then.
    """
    found, listed = torch.zeros_like(there), []
    first = kinds_of(scene)
    for member in first:
        fooled = _fooled(scene, planted, labels, threat, member)
        listed.append(f"{member.name} {100 * float(fooled[there].double().mean()):.0f} %")
        found = found | fooled
    names = {member.name for member in first}
    for member in scene.suite.members_for(scene.found.clean.logits.shape[1]):
        if not member.is_general or member.name in names or found[there].all():
            continue
        if member.sees == "gradients":
            found = found | _fooled(scene, planted, labels, threat, member)
    return found, listed


def _fooled(scene: Scene, planted: Planted, labels: Tensor, threat: Threat, member: Member) -> Tensor:
    """(K,) bool: ``member`` fools the planted model within ``threat``."""
    seed = scene.generator(member.name).initial_seed()
    perturbed = member.run(planted, planted.images, labels, threat, seed)
    with torch.no_grad():
        is_wrong = planted(perturbed).argmax(1) != labels
    fooled: Tensor = is_wrong & is_valid(planted.images, perturbed, threat)
    return fooled


@torch.no_grad()
def _plant(planted: Planted, labels: Tensor) -> Tensor:
    """(K,) bool: the planted example is one. Where the model drowns it, the ramp gets steeper."""
    for _ in range(TRIES):
        there = planted(planted.farthest).argmax(1) != labels
        planted.slope = torch.where(there, planted.slope, 2 * planted.slope)
    is_wrong: Tensor = planted(planted.farthest).argmax(1) != labels
    return is_wrong
