"""A patch as a threat model: our own measure of it, suites, records and gates."""

from typing import Any, ClassVar, Literal

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from temper.attacks import Member, PatchAttack, PatchSearch
from temper.errors import RecipeError
from temper.evaluation import (
    CascadePlan,
    Evaluation,
    EvaluationPlan,
    EvaluationSpec,
    Suite,
    evaluate_images,
    suite_for,
)
from temper.evaluation.gates.attackers import Transfer
from temper.evaluation.gates.planted import Planted, told_apart
from temper.evaluation.threats import distances, is_valid, sides_of_change
from temper.spec import Threat, validate

AREA = 0.15
"""Of 8 x 8 pixels: 3 x 3."""
THREAT = Threat(norm="patch", eps=AREA)
MEMBERS = (
    PatchAttack(locations=16, scout_steps=4, steps=10, num_goals=2),
    PatchSearch(num_queries=60),
)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def changed(*places: tuple[int, int, int], by: float = 0.25) -> tuple[Tensor, Tensor]:
    """A grey image (1,3,8,10), and it with the channels at ``places`` (channel, row, column) changed."""
    clean = torch.full((1, 3, 8, 10), 0.5)
    perturbed = clean.clone()
    for place in places:
        perturbed[(0, *place)] += by
    return clean, perturbed


@pytest.mark.parametrize(
    ("places", "side"),
    [
        ((), 0),
        (((2, 3, 4),), 1),
        (((0, 0, 0), (1, 0, 0)), 1),
        (((0, 2, 2), (0, 4, 3)), 3),
        (((0, 2, 2), (0, 2, 7)), 6),
        (((0, 0, 9), (2, 7, 0)), 10),
    ],
)
def test_the_measure_is_the_square_around_all_that_changed(places: Any, side: int) -> None:
    clean, perturbed = changed(*places)
    assert sides_of_change(clean, perturbed).tolist() == [side]
    assert distances(clean, perturbed, "patch").tolist() == pytest.approx([side**2 / 80])


def test_only_one_square_of_the_area_is_valid() -> None:
    threat = Threat(norm="patch", eps=9 / 80)
    inside = changed((0, 1, 1), (2, 3, 3))
    assert is_valid(*inside, threat).all()
    too_wide = changed((0, 1, 1), (0, 1, 4))
    assert not is_valid(*too_wide, threat).any()
    two_squares = changed((0, 0, 0), (0, 7, 9))
    assert not is_valid(*two_squares, threat).any()
    # Any colour in [0,1], but no other, and nothing that is no number.
    assert is_valid(*changed((1, 5, 5), by=0.5), threat).all()
    for by in (0.51, -0.51, float("nan"), float("inf")):
        assert not is_valid(*changed((1, 5, 5), by=by), threat).any()
    # A square of the whole area would reach out of an image that is wider than high.
    assert not is_valid(*changed((0, 0, 0), (0, 7, 9)), Threat(norm="patch", eps=1)).any()
    assert not is_valid(*changed((0, 0, 0)), Threat(norm="patch", eps=0)).any()


class Planes(nn.Module):
    """Three classes by planes; ``cut`` hides the gradient."""

    def __init__(self, *, cut: bool = False) -> None:
        super().__init__()
        self.register_buffer("weight", torch.randn(192, 3, generator=seeded(5)) / 8)
        self.cut = cut

    def forward(self, images: Tensor) -> Tensor:
        images = images.detach() + 0 * images if self.cut else images
        return (images - 0.5).flatten(1) @ self.weight  # type: ignore[operator]


def images_and_labels(model: Planes) -> tuple[np.ndarray, np.ndarray]:
    """uint8 images moved into their class, so that some patches fool and others do not."""
    into = model.weight.T[torch.arange(64) % 3].view(-1, 3, 8, 8)  # type: ignore[operator]
    floats = (torch.rand(64, 3, 8, 8, generator=seeded(6)) + 1.2 * into).clamp(0, 1)
    images = (floats * 255).round().byte()
    return images.numpy(), model(images.float() / 255).argmax(1).numpy()


def evaluate(model: Planes, members: Any = MEMBERS, threat: Threat = THREAT, **changes: Any) -> Evaluation:
    images, labels = images_and_labels(model)
    suite = Suite.model_construct(name="test", version=1, members=tuple(members))
    relatives = changes.pop("relatives", None)
    plan = EvaluationPlan.model_construct(
        main=CascadePlan.model_construct(threat=threat, suite=suite), seed=0, **changes
    )
    return evaluate_images(
        model, images, labels, np.arange(64), classes=["a", "b", "c"], plan=plan, relatives=relatives
    )


def failed(evaluation: Evaluation) -> list[str]:
    return [gate.name for gate in evaluation.gates if not gate.passed]


def test_an_honest_model_passes_the_gates_and_keeps_valid_patches() -> None:
    evaluation = evaluate(Planes(), relatives={"start": Planes()})
    assert failed(evaluation) == []
    assert 0 < evaluation.robust_acc.count < 40
    names = {gate.name for gate in evaluation.gates}
    assert {"eps 0 is clean", "planted adversarial", "zero gradients", "huge eps", "one step"} <= names
    assert {"random noise", "black box", "more steps", "lineage: start", "threat model kept"} <= names
    details = {gate.name: gate.detail for gate in evaluation.gates}
    assert "the suite found 100 %" in details["planted adversarial"]
    kept = evaluation.adversarial
    assert kept.threat == THREAT
    assert len(kept.rows) > 10
    for clean, image in zip(kept.clean.float() / 255, kept.images, strict=True):
        rows, columns = (clean != image).any(0).nonzero().T
        assert max(rows.max() - rows.min(), columns.max() - columns.min()) < 3
    outcomes = evaluation.outcomes.to_pydict()
    assert set(outcomes["patch-margin-16x4-10-goals-2/distance"]) <= {
        *np.float32([1, 4, 9]) / np.float32(64)
    } | {value for value in outcomes["patch-margin-16x4-10-goals-2/distance"] if value != value}


def test_hidden_gradients_are_blocked_and_the_search_without_them_finds_something() -> None:
    evaluation = evaluate(Planes(cut=True))
    assert {"zero gradients", "huge eps"} <= set(failed(evaluation))
    assert sum(one.num_fooled for one in evaluation.attacks if one.name.startswith("patch-search")) > 5


class TwoStickers(Member):
    """Breaks the rule: two squares, each small enough."""

    kind: Literal["two"] = "two"
    geometries: ClassVar[Any] = ("patch",)

    def run(self, model: nn.Module, images: Tensor, labels: Tensor, threat: Threat, seed: int) -> Tensor:
        found = images.clone()
        found[:, :, :2, :2] = 0
        found[:, :, -2:, -2:] = 1
        return found


def test_two_stickers_are_not_counted() -> None:
    evaluation = evaluate(Planes(), (TwoStickers(),))
    assert evaluation.attacks[0].num_fooled == 0
    assert evaluation.attacks[0].num_rejected == 64
    assert "threat model kept" in failed(evaluation)


class Tired(PatchAttack):
    """Says that it follows gradients, and stays in one corner without looking."""

    kind: Literal["tired"] = "tired"  # type: ignore[assignment]

    def run(self, model: nn.Module, images: Tensor, labels: Tensor, threat: Threat, seed: int) -> Tensor:
        found = images.clone()
        found[:, :, :3, :3] = 0
        return found


def test_an_attack_that_does_not_search_is_seen() -> None:
    blocked = failed(evaluate(Planes(), (Tired(),)))
    assert {"planted adversarial", "eps 0 is clean", "more steps"} <= set(blocked)


def test_a_planted_patch_is_told_apart_and_lies_in_its_square() -> None:
    model = Planes()
    images, labels = images_and_labels(model)
    clean, truth = torch.from_numpy(images[:8]).float() / 255, torch.from_numpy(labels[:8])
    # Two images that differ in 10 pixels: a patch of theirs may change 4 at most.
    clean[1] = clean[0]
    clean[1, :, 0, :] = 1 - clean[1, :, 0, :]
    clean[1, :, 1, :2] = 1 - clean[1, :, 1, :2]
    threat = told_apart(THREAT, clean)
    assert threat.eps <= 4.5 / 64
    planted = Planted(model, clean, model(clean).argmax(1), threat, seeded())
    assert is_valid(clean, planted.farthest, threat).all()
    points = planted.farthest[[3, 0, 1, 7]]
    assert planted._nearest(points).tolist() == [3, 0, 1, 7]
    assert (planted(planted.farthest).argmax(1) != model(clean).argmax(1)).all()
    assert truth.shape == (8,)


def test_what_fools_a_relative_is_tried_within_a_square() -> None:
    model = Planes()
    images, labels = images_and_labels(model)
    clean, truth = torch.from_numpy(images).float() / 255, torch.from_numpy(labels)
    found = Transfer.through(model, relative="start").run(model, clean, truth, THREAT, 0)
    assert is_valid(clean, found, THREAT).all()
    assert (model(found).argmax(1) != truth).double().mean() > 0.2


def test_a_patch_stands_beside_a_norm_and_its_curve_is_nested() -> None:
    spec = validate(EvaluationSpec, {"others": [{"norm": "patch", "eps": 0.1}]}, "test")
    plan = spec.plan(Threat(eps=0.01), seed=0)
    model = Planes()
    images, labels = images_and_labels(model)
    evaluation = evaluate_images(model, images, labels, np.arange(64), classes=["a", "b", "c"], plan=plan)
    other = evaluation.others[0]
    assert (other.threat.label, other.suite) == ("Patch 0.1", "quick-patch")
    assert [attack.name for attack in other.attacks] == [
        member.name for member in suite_for("quick", "patch").members
    ]
    assert evaluation.union_acc is not None
    assert evaluation.union_acc.count <= min(other.robust_acc.count, evaluation.robust_acc.count)
    assert "Patch 0.1/robust" in evaluation.outcomes.column_names
    curve = evaluate(model, curve=(0.02, 0.07)).curve
    assert [point.eps for point in curve] == [0.02, 0.07, AREA]
    counts = [point.robust_acc.count for point in curve]
    assert counts == sorted(counts, reverse=True)
    assert counts[0] > counts[-1]


def test_there_are_no_minimum_norms_of_a_patch() -> None:
    spec = validate(EvaluationSpec, {"minimum_norms": True}, "test")
    with pytest.raises(RecipeError, match="not defined for patch"):
        spec.plan(THREAT, seed=0)
