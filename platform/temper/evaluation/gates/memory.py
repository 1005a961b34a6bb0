"""A gate on models that remember their queries."""

import math
from typing import Any

import torch
from pydantic import PrivateAttr
from torch import Tensor, nn

from temper.attacks.losses import is_fooled, margin
from temper.attacks.norms import project, steepest
from temper.evaluation.cascade import run_cascade
from temper.evaluation.counted_model import HeldModel
from temper.evaluation.fresh import Fresh
from temper.evaluation.gates.attackers import ManySteps, ball_norm
from temper.evaluation.gates.base import Scene, gate
from temper.evaluation.gates.model import SAME_ANSWER
from temper.records import GateRecord
from temper.seeds import derive_seed
from temper.statistics import fisher_exact, wilson

NUM_IMAGES, STEPS = 16, 10
NUM_ORDERED = 64
"""Images of which half are asked in one order, and half in the other."""
FEWEST_ORDERED = 16
MAX_CHANCE = 1e-4
"""Chance of so large a difference between the halves, if the order changed nothing."""
NUM_PARTNERS = 8
"""Images of which the least alike lends a part."""
NUM_WINDOWS = 5
"""Parts that may be another's: four corners and the middle."""


class Forgetful(nn.Module):
    """A model without memory: every pass goes through a fresh copy."""

    def __init__(self, fresh: Fresh) -> None:
        super().__init__()
        self._fresh = fresh

    def forward(self, images: Tensor) -> Tensor:
        # A function that builds a model may train it, and draw.
        with torch.enable_grad(), torch.random.fork_rng():
            model = self._fresh().to(images.device).eval()
        # One by one: TorchScript has no requires_grad_ of modules, and its copies' parameters are no leaves.
        for parameter in model.parameters():
            if parameter.is_leaf:
                parameter.requires_grad_(False)
        logits: Tensor = model(images)
        return logits


class Recorded(ManySteps):
    """Keeps what it found."""

    _found: list[tuple[Tensor, Tensor]] = PrivateAttr(default_factory=list)

    @property
    def name(self) -> str:
        return "gate-fresh-copies"

    def run(self, model: nn.Module, images: Tensor, labels: Tensor, threat: Any, seed: int) -> Tensor:
        found = super().run(model, images, labels, threat, seed)
        self._found.append((images, found))
        return found

    @property
    def found(self) -> tuple[Tensor, Tensor]:
        """Images and what was made of them, each (K,3,H,W)."""
        images, found = zip(*self._found, strict=True)
        return torch.cat(images), torch.cat(found)


def no_memory(scene: Scene) -> GateRecord:
    """What the model was asked before changes no answer, wherever it may keep that."""
    if not scene.main.standing.any():
        return gate("memory", True, "no image is left standing, so there is nothing more to find", "")
    alike = None if scene.fresh is None else _like_fresh_copies(scene, scene.fresh)
    if alike is not None and not alike.passed:
        return alike
    ordered = None if scene.norm == "patch" else _in_any_order(scene)
    if ordered is not None and not ordered.passed:
        return ordered
    details = [one.detail for one in (alike, ordered) if one is not None]
    return gate("memory", True, "; ".join(details) or "the model cannot be copied: nothing was tried", "")


def _like_fresh_copies(scene: Scene, fresh: Fresh) -> GateRecord:
    """What a fresh copy answers, the model that was asked before answers too.

    A model that remembers the clean images, and answers alike near them, stands against every attack that
    asks it more than once. So fresh copies are attacked, each asked once, and what is found is shown to both.
    """
    name = "memory"
    chosen = scene.some(scene.main.standing, min(NUM_IMAGES, scene.batching.batch_size))
    forgetful, attack = Forgetful(fresh), Recorded(steps=STEPS)
    held = HeldModel(forgetful, forgetful)
    seed = derive_seed(scene.seed, "gates", "memory")
    run_cascade(held, scene.data, scene.main, [attack], seed=seed, batching=scene.batching, among=chosen)
    images, perturbed = attack.found
    with torch.no_grad():
        # The clean images first: what a memory would take the perturbed ones for.
        scene.held.model(images)
        asked, unasked = scene.held.model(perturbed), held.model(perturbed.flip(0)).flip(0)
    apart = float((asked - unasked).abs().max() / unasked.abs().max().clamp_min(1e-12))
    scene.count(held.model)
    fallen = int(scene.main.members[-1].fooled.sum())
    return gate(
        name,
        apart <= SAME_ANSWER,
        f"{len(images)} perturbed images get the answers that fresh copies give; {fallen} fooled those",
        f"the model's answers depend on earlier queries: on {len(images)} perturbed images a "
        f"fresh copy's logits differ by up to {100 * apart:.0f} %, and {fallen} fool fresh copies alone. "
        "Remove from forward whatever it keeps between calls",
    )


def _in_any_order(scene: Scene) -> GateRecord:
    """A perturbed image fools the model as often before its clean image is asked as after it.

    Copies share what a model keeps outside of itself: in its module, in a closure, in a file. So new images
    are asked, each with a part of another one, far from all that was asked: half perturbed, half clean and
    then perturbed. The perturbation comes from other such images, too, and none is asked twice.
    """
    images, labels = scene.pixels(scene.some(scene.main.standing, NUM_ORDERED))
    if len(images) < FEWEST_ORDERED:
        few = f"fewer than {FEWEST_ORDERED} images are left, so the order of queries was not tested"
        return gate("memory", True, few, "")
    generator = scene.generator("order")
    ascent = torch.zeros_like(images)
    for window in range(1, NUM_WINDOWS):
        mixed, is_own = _with_part_of_another(images, window, generator)
        ascent += is_own * _unit_gradient(scene, mixed, labels)
    clean, _ = _with_part_of_another(images, 0, generator)
    norm, eps = ball_norm(scene.main.threat), scene.main.threat.eps
    perturbed = project(norm, clean + eps * steepest(norm, ascent, clean), clean, eps)
    half = len(images) // 2
    with torch.no_grad():
        first = is_fooled(scene.held.model(perturbed[:half]), labels[:half])
        scene.held.model(clean[half:])
        second = is_fooled(scene.held.model(perturbed[half:]), labels[half:])
    before, after = int(first.sum()), int(second.sum())
    chance = fisher_exact(wilson(before, half), wilson(after, len(second)), is_greater=True)
    seen = (
        f"of new images {before} of {half} fool it when queried perturbed first, {after} of "
        f"{len(second)} when queried clean first"
    )
    return gate(
        "memory",
        chance > MAX_CHANCE,
        seen,
        f"the model's answers depend on earlier queries: {seen}. Remove from forward whatever "
        "it keeps between calls, in its module, in a closure or in a file",
    )


def _with_part_of_another(images: Tensor, window: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """``images`` (B,C,H,W) with a ninth of each taken from another, and where they are their own."""
    height, width = images.shape[-2:]
    tall, wide = math.ceil(height / 3), math.ceil(width / 3)
    top = (0, 0, height - tall, height - tall, (height - tall) // 2)[window]
    left = (0, width - wide, 0, width - wide, (width - wide) // 2)[window]
    part = (..., slice(top, top + tall), slice(left, left + wide))
    drawn = torch.randint(len(images), (NUM_PARTNERS, len(images)), generator=generator, device=images.device)
    apart = (images[drawn][part] - images[part]).square().flatten(2).sum(2)
    partners = drawn.gather(0, apart.argmax(0, keepdim=True))[0]
    mixed, is_own = images.clone(), torch.ones_like(images)
    mixed[part], is_own[part] = images[partners][part], 0.0
    return mixed, is_own


def _unit_gradient(scene: Scene, images: Tensor, labels: Tensor) -> Tensor:
    """Of the margin, scaled so that each image's values average 1."""
    parts: list[Tensor] = []
    for rows in torch.split(torch.arange(len(images), device=images.device), scene.batching.batch_size):
        with torch.enable_grad():
            asked = images[rows].requires_grad_()
            loss = margin(scene.held.model(asked), labels[rows]).sum()
            parts += torch.autograd.grad(loss, asked)
    gradient = torch.cat(parts).nan_to_num(0.0, 0.0, 0.0)
    return gradient / gradient.abs().mean((1, 2, 3), keepdim=True).clamp_min(1e-30)
