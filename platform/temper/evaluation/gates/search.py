"""Gates that search further where the suite found nothing: no other attack may find much more."""

from temper.evaluation.found import MemberOutcome
from temper.evaluation.gates.attackers import ManySteps, Noise, OneStep, Queries, Transfer
from temper.evaluation.gates.base import (
    NUM_CHECKED,
    Scene,
    gate,
    inherit,
    judge,
    outdone,
)
from temper.evaluation.statistics import wilson
from temper.records import GateRecord

MANY_STEPS = (40, 200)
"""Twice the most steps of the suite, but within these bounds: with fewer APGD has hardly begun, and beyond
its results no longer move (Croce and Hein 2020, arXiv:2003.01690, use 100)."""

MAX_STEPS_IN_ALL = 6400
"""Steps that the gate may take on all its images together, so that it stays a small part of the suite."""

MAX_ONE_STEP_SHARE = 0.01
"""Of images that one step fooled and many did not: luck near the boundary, up to here."""

NUM_STEPS_AGAINST_ONE = 20


def check_search(scene: Scene) -> list[GateRecord]:
    """From what costs little to what finds most."""
    return [one_step(scene), random_noise(scene), black_box(scene), *lineage(scene), more_steps(scene)]


def one_step(scene: Scene) -> GateRecord:
    """What one step finds, many steps must find too."""
    name = "one step"
    checked = scene.some(scene.found.clean.correct, NUM_CHECKED)
    num_checked = int(checked.sum())
    if num_checked == 0:
        return gate(name, True, "no image is classified correctly, so there is nothing to compare", "")
    one, many = scene.apart(checked), scene.apart(checked)
    by_one = scene.attack(one, OneStep(), checked).fooled
    by_many = scene.attack(many, ManySteps(steps=NUM_STEPS_AGAINST_ONE), by_one).fooled
    inherit(scene.main, one, "gate-one-step")
    alone = int((by_one & ~by_many).sum())
    seen = f"of {num_checked} images one step fooled {int(by_one.sum())}, {alone} of which many steps did not"
    return gate(
        name,
        wilson(alone, num_checked).low <= MAX_ONE_STEP_SHARE,
        seen,
        f"{seen}: gradients lead away from adversarial examples. Look for what hides them in forward",
    )


def random_noise(scene: Scene) -> GateRecord:
    """Random points of the ball find nothing where gradients found nothing."""
    return outdone(
        scene,
        "random noise",
        Noise(),
        "random noise",
        "Noise finds what gradients do not: they are masked, or forward is random",
    )


def black_box(scene: Scene) -> GateRecord:
    """Attacks that see no gradients find nothing where those that do found nothing."""
    name, by = "black box", "attacks that see no gradients"
    bad = "They cannot be better where gradients are honest: look for what hides them in forward"
    after = _after_gradients(scene.main.members)
    if after:
        stood, fallen = int(after[0].attacked.sum()), sum(int(member.fooled.sum()) for member in after)
        return judge(name, fallen, stood, stood, len(scene.data.labels), by, bad)
    return outdone(scene, name, Queries(), by, bad)


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
    """Twice the steps find nothing more."""
    most = max((int(member.settings.get("steps", 1)) for member in scene.main.members), default=1)
    least_steps, most_steps = MANY_STEPS
    steps = min(max(2 * most, least_steps), most_steps)
    return outdone(
        scene,
        "more steps",
        ManySteps(steps=steps),
        f"APGD with {steps} steps",
        "The suite has not converged on this model: take a stronger one (standard, full)",
        limit=min(NUM_CHECKED, MAX_STEPS_IN_ALL // steps),
    )


def lineage(scene: Scene) -> list[GateRecord]:
    """Adversarial examples of relatives find nothing more (Kang 2021 fell by 7 points that way)."""
    return [
        outdone(
            scene,
            f"lineage: {name}",
            Transfer.from_relative(name, logits_fn),
            f"adversarial examples of {name}",
            "An attack on a relative is stronger than one on the model itself: its gradients are masked",
        )
        for name, logits_fn in scene.relatives.items()
    ]
