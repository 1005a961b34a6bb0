"""Gates on the ends of the scale: no perturbation changes nothing, a huge one leaves nothing."""

import torch
from torch import Tensor

from temper.attacks import Member
from temper.evaluation.chunk_outcome import CascadeOutcome
from temper.evaluation.gates.attackers import ManySteps
from temper.evaluation.gates.base import Scene, doubt, gate
from temper.records import GateRecord
from temper.spec import Norm

NUM_AT_ZERO = 4
"""Images for eps 0: an attack that moves any image moves all."""

STEPS_AT_ZERO = 3
"""Of members with steps: the first already shows what eps does."""

SAME_LOGITS = 1e-4
"""Relative to the largest: answers to the same image in other batches differ by float error."""

NUM_HUGE = 32
MAX_STANDING_AT_HUGE = 0.05
"""Share of images that may stand at ``HUGE``: one of 32."""

HUGE = 0.5
"""In Linf: from any image, flat grey is within reach, where all images are the same."""

HUGE_STEPS = (20, 100)
"""A second, longer try is for those alone that stood the first."""


def kinds_of(scene: Scene) -> list[Member]:
    """One member of each kind that follows gradients; of the same attack with other steps, the first."""
    members: dict[str, Member] = {}
    num_classes = scene.found.clean.logits.shape[1]
    for member in scene.suite.members_for(num_classes):
        if member.sees == "gradients" and member.is_general:
            settings = member.model_dump(exclude={"steps", "rel_stepsize", "restarts", "locations"})
            members.setdefault(str(settings), member.model_copy(update={"restarts": 1}))
    return list(members.values())


def zero_eps(scene: Scene) -> GateRecord:
    """With eps 0 every attack leaves exactly the clean answers."""
    few = scene.some(torch.ones_like(scene.main.standing), NUM_AT_ZERO)
    threat = scene.main.threat.model_copy(update={"eps": 0.0})
    clean, moved = scene.found.clean, []
    for member in kinds_of(scene):
        short = {"steps": min(STEPS_AT_ZERO, member.steps)} if hasattr(member, "steps") else {}
        outcome = CascadeOutcome.begin(threat, "gates", clean, scene.data.images, torch.zeros_like(few))
        scene.attack(outcome, member.model_copy(update=short), few)
        if not _unmoved(outcome, clean.correct, clean.logits):
            moved.append(member.name)
    return gate(
        "eps 0 is clean",
        not moved,
        "attacks with eps 0 leave the clean answers",
        f"with eps 0 the answers changed ({', '.join(moved)}): that attack's bounds or projection are wrong, "
        "or forward is random; fix it",
    )


def _unmoved(outcome: CascadeOutcome, correct: Tensor, logits: Tensor) -> bool:
    scale = logits.abs().max().clamp_min(1e-6)
    is_same = torch.allclose(outcome.worst_logits, logits, rtol=0, atol=float(SAME_LOGITS * scale))
    return torch.equal(outcome.standing, correct) and outcome.members[-1].num_rejected == 0 and is_same


def _answers_alike(scene: Scene) -> bool:
    """Whether images of several classes have one answer, which is right as often as that class comes.

    So it answers an untrained network, and one that was trained too little or at too high a rate.
    """
    answers, labels = scene.found.clean.prediction, scene.data.labels
    return int(answers.amin()) == int(answers.amax()) and int(labels.amin()) < int(labels.amax())


def huge_eps(scene: Scene) -> GateRecord:
    """A huge eps leaves next to nothing standing."""
    name = "huge eps"
    checked = scene.some(scene.found.clean.correct, min(NUM_HUGE, scene.batching.batch_size))
    images, labels = scene.pixels(checked)
    if len(labels) == 0:
        return gate(name, True, "no image is classified correctly, so none can fall", "")
    if _answers_alike(scene):
        return gate(name, True, "the model gives every image the same answer: no number is too high", "")
    num_pixels = images[0].numel()
    # A patch may cover the whole image, so it may do what a ball of Linf does.
    norm: Norm = "linf" if scene.norm == "patch" else scene.norm
    eps = {"linf": HUGE, "l2": HUGE * num_pixels**0.5, "l1": HUGE * num_pixels}[norm]
    standing, answers = torch.ones_like(labels, dtype=torch.bool), labels.clone()
    for steps in HUGE_STEPS:
        rows = standing.nonzero().flatten()
        if len(rows) <= MAX_STANDING_AT_HUGE * len(labels):
            break
        found = ManySteps(steps=steps).within(
            scene.held.folded, images[rows], labels[rows], norm, eps, scene.generator(f"huge {steps}")
        )
        with torch.no_grad():
            logits, finite = scene.held.model.answer(found.clamp(0, 1))
        answers[rows] = torch.where(finite, logits.argmax(1), -1)
        standing = answers == labels
    num_standing = int(standing.sum())
    seen = f"{num_standing} of {len(labels)} images stand at {norm} eps {eps:.4g}"
    is_constant = int(answers.amin()) == int(answers.amax())
    cause = (
        "the model gives the same answer whatever the image"
        if is_constant
        else "gradients are masked; look for what hides them in forward"
    )
    all_fall = num_standing <= MAX_STANDING_AT_HUGE * len(labels)
    return doubt(scene, name, all_fall, seen, f", where all must fall: {cause}")
