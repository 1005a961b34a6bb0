"""Gates that search further where the suite found nothing: other attacks must not find much more."""

import torch.nn.functional as F
from torch import Tensor, nn

from temper.attacks import LogitsFn
from temper.evaluation.chunk_outcome import MemberOutcome
from temper.evaluation.counted_model import CountedModel
from temper.evaluation.gates.attackers import ManySteps, Noise, OneStep, Queries, Transfer
from temper.evaluation.gates.base import (
    MAX_MISSED,
    Scene,
    doubt,
    gate,
    inherit,
    judge,
    outdone,
)
from temper.records import GateRecord
from temper.records.suite import OPTIMISM
from temper.statistics import wilson

MANY_STEPS = (40, 200)
"""Twice the most steps of the suite, but within these bounds: with fewer APGD has hardly begun, and beyond
its results no longer move (Croce and Hein 2020, arXiv:2003.01690, use 100)."""

NOISE_PART, QUERIES_PART, STEPS_PART, RELATIVE_PART = 0.05, 0.15, 0.2, 0.1
"""Of the passes of the whole evaluation so far, which these gates may add; together less than half."""

MAX_ONE_STEP_SHARE = 0.01
"""Of images that one step fooled and many did not: luck near the boundary, up to here."""

NEVER = -1e4
"""The logit of a class that a relative does not know."""

NUM_COMPARED = 64
NUM_STEPS_AGAINST_ONE = 20


class Relative(nn.Module):
    """A function from images to logits as a module; classes that it does not know never win."""

    def __init__(self, logits_fn: LogitsFn, num_classes: int) -> None:
        super().__init__()
        self.logits_fn, self.num_classes = logits_fn, num_classes

    def forward(self, images: Tensor) -> Tensor:
        logits = self.logits_fn(images)
        return F.pad(logits, (0, max(0, self.num_classes - logits.shape[1])), value=NEVER)


def check_search(scene: Scene) -> list[GateRecord]:
    """Cheap gates first, the strongest last."""
    return [one_step(scene), random_noise(scene), black_box(scene), *lineage(scene), more_steps(scene)]


def one_step(scene: Scene) -> GateRecord:
    """What one step finds, many steps must find too."""
    name = "one step"
    checked = scene.some(scene.found.clean.correct, NUM_COMPARED)
    num_checked = int(checked.sum())
    if num_checked == 0:
        return gate(name, True, "no image is classified correctly, so there is nothing to compare", "")
    one, many = scene.apart(checked), scene.apart(checked)
    by_one = scene.attack(one, OneStep(), checked).fooled
    by_many = scene.attack(many, ManySteps(steps=NUM_STEPS_AGAINST_ONE), by_one).fooled
    inherit(scene.main, one, "gate-one-step")
    alone = int((by_one & ~by_many).sum())
    seen = f"of {num_checked} images one step fooled {int(by_one.sum())}, {alone} of which many steps did not"
    return doubt(
        scene,
        name,
        wilson(alone, num_checked).low <= MAX_ONE_STEP_SHARE,
        seen,
        ": gradients lead away from adversarial examples. Look for what hides them in forward",
    )


def random_noise(scene: Scene) -> GateRecord:
    """Random points of the ball find nothing where gradients found nothing."""
    noise = Noise()
    return outdone(
        scene,
        "random noise",
        noise,
        "random noise",
        "Noise finds what gradients do not: they are masked, or forward is random",
        scene.affordable(noise.draws, NOISE_PART),
    )


def black_box(scene: Scene) -> GateRecord:
    """Attacks that see no gradients find nothing where those that do found nothing."""
    name, by = "black box", "attacks that see no gradients"
    bad = "With honest gradients they cannot be better: look for what hides gradients in forward"
    after = _after_gradients(scene.main.members)
    if after:
        stood, fallen = int(after[0].attacked.sum()), sum(int(member.fooled.sum()) for member in after)
        return judge(name, fallen, stood, stood, len(scene.data.labels), by, bad)
    square = Queries()
    if scene.norm not in square.geometries:
        return gate(
            name, True, f"no attack without gradients is known for {scene.norm}: only noise was tried", ""
        )
    return outdone(scene, name, square, by, bad, scene.affordable(square.num_queries, QUERIES_PART))


def _after_gradients(members: list[MemberOutcome]) -> list[MemberOutcome]:
    """The suite's members that see no gradients, from the first on that came after all those that do."""
    suite = [member for member in members if not member.name.startswith("gate-")]
    after: list[MemberOutcome] = []
    for member in suite:
        if member.sees == "gradients":
            after = []
        elif member.sees != "carried":
            after.append(member)
    has_gradients = any(member.sees == "gradients" for member in suite)
    return after if has_gradients else []


def more_steps(scene: Scene) -> GateRecord:
    """Twice the steps find nothing more, or of a short suite no more than is said beside its numbers."""
    most = max((int(member.settings.get("steps", 1)) for member in scene.main.members), default=1)
    least_steps, most_steps = MANY_STEPS
    steps = min(max(2 * most, least_steps), most_steps)
    return outdone(
        scene,
        "more steps",
        ManySteps(steps=steps),
        f"APGD with {steps} steps",
        "The suite has not converged on this model: use a stronger one (standard, full)",
        scene.affordable(2 * steps, STEPS_PART),
        allowed=max(MAX_MISSED, OPTIMISM.get((scene.suite.name, scene.suite.version), 0.0)),
    )


def lineage(scene: Scene) -> list[GateRecord]:
    """Adversarial examples of relatives find nothing more (Kang 2021 fell by 7 points that way)."""
    records = []
    for name, logits_fn in scene.relatives.items():
        relative = CountedModel(Relative(logits_fn, scene.found.clean.logits.shape[1]))
        member = Transfer.through(relative, relative=name)
        records.append(
            outdone(
                scene,
                f"lineage: {name}",
                member,
                f"adversarial examples of {name}",
                "An attack on a relative is stronger than one on the model itself: gradients are masked",
                scene.affordable(2 * member.steps, RELATIVE_PART),
            )
        )
        scene.count(relative)
    return records
