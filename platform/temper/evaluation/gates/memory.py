"""A gate on models that remember their queries."""

from typing import Any

import torch
from pydantic import PrivateAttr
from torch import Tensor, nn

from temper.evaluation.cascade import run_cascade
from temper.evaluation.counted_model import HeldModel
from temper.evaluation.fresh import Fresh
from temper.evaluation.gates.attackers import ManySteps
from temper.evaluation.gates.base import Scene, gate
from temper.evaluation.gates.model import SAME_ANSWER
from temper.records import GateRecord
from temper.seeds import derive_seed

NUM_IMAGES, STEPS = 16, 10


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
    """The queried model must answer as a fresh copy does.

    A model that remembers the clean images, and answers alike near them, stands against every attack that
    asks it more than once. So fresh copies are attacked, each asked once, and what is found is shown to both.
    """
    name = "memory"
    if scene.fresh is None:
        return gate(name, True, "the model cannot be copied, so whether it remembers was not looked at", "")
    if not scene.main.standing.any():
        return gate(name, True, "no image is left standing, so there is nothing more to find", "")
    chosen = scene.some(scene.main.standing, min(NUM_IMAGES, scene.batching.batch_size))
    forgetful, attack = Forgetful(scene.fresh), Recorded(steps=STEPS)
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
        f"what the model answers depends on what it was asked before: on {len(images)} perturbed images a "
        f"fresh copy's logits differ by up to {100 * apart:.0f} %, and {fallen} fool fresh copies alone. "
        "Remove from forward whatever it keeps between calls",
    )
