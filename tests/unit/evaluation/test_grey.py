"""Threat models in grey: every attack changes the three equal channels alike."""

from typing import get_args

import numpy as np
import pytest
import torch
from torch import nn

from temper.attacks import FGSM, PGD, Member, PatchPGD, perturb_channels
from temper.errors import DataError, RecipeError
from temper.evaluation import EvaluationPlan, EvaluationSpec, evaluate_images
from temper.evaluation.cascade import Batching, LabelledImages, run_cascade
from temper.evaluation.chunk import answer_clean
from temper.evaluation.chunk_outcome import CascadeOutcome
from temper.evaluation.counted_model import held_still
from temper.evaluation.members import EADMember, SaltPepperMember
from temper.evaluation.plan import CascadePlan
from temper.evaluation.suite import Suite, suite_for
from temper.evaluation.suites import SUITES
from temper.evaluation.threats import distances, is_valid
from temper.spec import Geometry, Norm, Threat

EPS: dict[Geometry, float] = {
    "linf": 0.1, "l2": 0.8, "l1": 4.0, "l0": 3, "semantic": 0.7, "patch": 0.1
}  # fmt: skip
SHORT = {
    "steps": 5, "num_queries": 30, "queries": 30, "restarts": 1, "searches": 1, "evaluations": 10,
    "rounds": 1, "locations": 2, "scout_steps": 2, "num_goals": 2,
}  # fmt: skip


class Small(nn.Module):
    """A convolution and a linear layer for images of 8 x 8, with random weights."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.body, self.head = nn.Conv2d(3, 8, 3, padding=1), nn.Linear(8 * 64, 4)
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.copy_(torch.randn(parameter.shape, generator=generator) / 4)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.head(self.body(images).relu().flatten(1))
        return logits


def shortened(member: Member) -> Member:
    """The same attack with fewer steps."""
    fields = type(member).model_fields
    return member.model_copy(
        update={name: value for name, value in SHORT.items() if name in fields and getattr(member, name)}
    )


def cases() -> list[object]:
    found = {}
    for suites in SUITES.values():
        for norm, members in suites.items():
            found |= {(member.kind, norm): shortened(member) for member in members}
    found |= {("salt_pepper", "l0"): SaltPepperMember(steps=10), ("ead", "l1"): EADMember(steps=5)}
    return [pytest.param(member, norm, id=f"{kind}-{norm}") for (kind, norm), member in found.items()]


def grey_images(count: int = 16) -> tuple[torch.Tensor, torch.Tensor]:
    """uint8 (N,3,8,8), grey, and what the small model takes them for."""
    generator = torch.Generator().manual_seed(3)
    images = torch.randint(0, 256, (count, 1, 8, 8), generator=generator, dtype=torch.uint8)
    images = images.repeat(1, 3, 1, 1)
    with torch.no_grad():
        return images, Small()(images.float() / 255).argmax(1)


@pytest.mark.parametrize(("member", "norm"), cases())
def test_every_member_changes_all_channels_alike(member: Member, norm: Geometry) -> None:
    images, labels = grey_images()
    threat = Threat(norm=norm, eps=EPS[norm], channels="grey")
    data = LabelledImages(images, labels)
    with held_still(Small(), images[:4].float() / 255) as held:
        clean = answer_clean(held.model, data, 16, torch.device("cpu"))
        everything = torch.ones(len(labels), dtype=torch.bool)
        outcome = CascadeOutcome.begin(threat, "one", clean, images, everything)
        run_cascade(
            held,
            data.attacked_within(threat),
            outcome,
            [member],
            seed=0,
            batching=Batching(16, torch.device("cpu")),
        )
        fallen = ~outcome.standing
        with torch.no_grad():
            answers = held.model(outcome.adversarial[fallen]).argmax(1)
    assert outcome.members[0].num_rejected == 0
    found, before = outcome.adversarial[fallen], images[fallen].float() / 255
    assert torch.equal(found, found[:, :1].expand_as(found))
    assert is_valid(before, found, threat).all()
    assert (answers != labels[fallen]).all()
    lengths = distances(before[:, :1], found[:, :1], norm)
    assert torch.allclose(lengths, outcome.distance[fallen], atol=1e-5)


def test_most_members_find_something() -> None:
    """Or the test above would look at nothing."""
    for norm in get_args(Geometry):
        images, labels = grey_images()
        found = evaluate(images, labels, Threat(norm=norm, eps=EPS[norm], channels="grey"))
        assert found.robust_acc.value < 1, norm
        assert len(found.adversarial.images), norm


def evaluate(images: torch.Tensor, labels: torch.Tensor, threat: Threat, **settings: object):
    plan = EvaluationSpec(**settings).plan(threat, 0)
    classes = ["a", "b", "c", "d"]
    rows = np.arange(len(labels))
    return evaluate_images(Small(), images.numpy(), labels.numpy(), rows, classes=classes, plan=plan)


@pytest.mark.parametrize(("norm", "factor"), [("linf", 1.0), ("l2", 3**0.5), ("l1", 3.0)])
def test_grey_attacks_find_no_more_than_attacks_in_colour(norm: Norm, factor: float) -> None:
    """Each grey image within eps is one in colour within eps times the norm of (1, 1, 1)."""
    images, labels = grey_images(48)
    eps = EPS[norm] / (12 if norm == "l1" else 4)
    threat = Threat(norm=norm, eps=eps, channels="grey")
    grey = evaluate(images, labels, threat, minimum_norms=True, suite="standard")
    colour = Threat(norm=norm, eps=factor * eps)
    in_colour = evaluate(images, labels, colour, suite="standard")
    assert 0 < in_colour.robust_acc.value <= grey.robust_acc.value
    assert not [gate for gate in grey.gates if not gate.passed]
    assert is_valid(grey.adversarial.clean.float() / 255, grey.adversarial.images, threat).all()
    # Numbers of the two never stand in one place.
    assert grey.adversarial.threat != colour
    assert grey.adversarial.threat.label.endswith(" grey")


def test_what_is_not_grey_is_no_grey_perturbation() -> None:
    clean = torch.full((1, 3, 4, 4), 0.5)
    tinted = clean.clone()
    tinted[:, 0, 0, 0] += 0.01
    grey = clean.clone()
    grey[:, :, 0, 0] += 0.01
    assert is_valid(clean, tinted, Threat(eps=0.1)).all()
    assert not is_valid(clean, tinted, Threat(eps=0.1, channels="grey")).any()
    assert is_valid(clean, grey, Threat(eps=0.1, channels="grey")).all()
    # Of the grey image a pixel counts once: its length is 0.01, not 0.0173.
    assert is_valid(clean, grey, Threat(norm="l2", eps=0.011, channels="grey")).all()
    assert not is_valid(clean, grey, Threat(norm="l2", eps=0.009, channels="grey")).any()


def test_images_with_colour_are_refused() -> None:
    images, labels = grey_images()
    images[3, 0, 0, 0] ^= 1
    with pytest.raises(DataError, match=r"threat\.channels: grey is for grey images, but 1 of 16"):
        evaluate(images, labels, Threat(eps=0.1, channels="grey"))


def test_further_threat_models_have_the_same_channels() -> None:
    spec = EvaluationSpec(others=(Threat(norm="l2", eps=0.5),), curve=(0.05,))
    plan = spec.plan(Threat(eps=0.1, channels="grey"), 0)
    assert [one.threat.channels for one in plan.cascades] == ["grey"] * 3
    spec = EvaluationSpec(others=(Threat(norm="l2", eps=0.5, channels="colour"),))
    with pytest.raises(RecipeError, match=r"evaluation\.others: L2 0\.5 has channels colour"):
        spec.plan(Threat(eps=0.1, channels="grey"), 0)


def test_records_and_plans_in_colour_are_written_as_before() -> None:
    assert Threat(eps=0.1, channels="colour").model_dump() == {"norm": "linf", "eps": 0.1}
    assert Threat.model_validate({"norm": "linf", "eps": 0.1}).channels == "colour"
    grey = Threat(eps=0.1, channels="grey")
    assert Threat.model_validate(grey.model_dump(mode="json")) == grey
    plans = [
        EvaluationPlan(main=CascadePlan(threat=threat, suite=suite_for("quick", "linf")), seed=0).hash
        for threat in (Threat(eps=0.1), grey)
    ]
    assert plans[0] != plans[1]
    assert Suite.model_validate(suite_for("quick", "linf").model_dump()).hash


@pytest.mark.parametrize("attack", [FGSM(eps=0.1), PGD(norm="l2", eps=0.5, steps=3), PatchPGD(eps=0.1)])
def test_attacks_of_training_change_all_channels_alike(attack: PGD) -> None:
    images, labels = grey_images()
    clean = images.float() / 255
    generator = torch.Generator().manual_seed(0)
    found = perturb_channels(attack, Small(), clean, labels, generator, "grey")
    assert found.shape == clean.shape
    assert torch.equal(found, found[:, :1].expand_as(found))
    assert not torch.equal(found, clean)
    threat = Threat(norm="patch" if isinstance(attack, PatchPGD) else attack.norm, eps=attack.eps)
    assert is_valid(clean, found, threat.model_copy(update={"channels": "grey"})).all()
