from pathlib import Path
from typing import Any, Literal, get_args

import foolbox
import numpy as np
import pytest
import torch
from torch import nn

from temper.attacks import APGD, DeepFool, FullFGSM, LastPGD, Member, ShrinkingAPGD
from temper.cluster.launch import launch
from temper.errors import RecipeError
from temper.evaluation import (
    CascadePlan,
    EvaluationPlan,
    LinearProbe,
    evaluate_images,
    suite_for,
)
from temper.evaluation.cascade import Batching, LabelledImages, run_cascade
from temper.evaluation.chunk_outcome import CascadeOutcome, CleanOutcome
from temper.evaluation.counted_model import HeldModel
from temper.evaluation.members import EADMember, FMNMember
from temper.evaluation.suite import Suite
from temper.evaluation.suites import SuiteName
from temper.evaluation.threats import is_valid, margins
from temper.spec import Geometry, Threat
from temper.statistics import fold_spread, wilson

THREAT = Threat(eps=0.1)
MEMBERS = (FullFGSM(), LastPGD(steps=5, rel_stepsize=0.3, restarts=2))


def data(model: nn.Module, count: int = 40) -> tuple[np.ndarray, np.ndarray]:
    """Images with the labels that the model gives them, but for every tenth."""
    images = np.random.default_rng(0).integers(0, 256, (count, 3, 16, 16), dtype=np.uint8)
    with torch.no_grad():
        labels = model(torch.from_numpy(images).float() / 255).argmax(1).numpy()
    labels[::10] = (labels[::10] + 1) % 3
    return images, labels


def evaluate(model: nn.Module, threat: Threat = THREAT, suite: Suite | None = None, **changes: Any) -> Any:
    images, labels = data(changes.pop("labeller", model))
    suite = suite or Suite(name="test", version=1, members=MEMBERS)
    return evaluate_images(
        model,
        images,
        labels,
        np.arange(40),
        classes=["a", "b", "c"],
        plan=EvaluationPlan(
            main=CascadePlan(threat=threat, suite=suite), seed=0, chunk_size=changes.pop("chunk_size", 256)
        ),
        **changes,
    )


def cascade(
    model: nn.Module,
    images: np.ndarray,
    labels: torch.Tensor,
    logits: torch.Tensor,
    members: Any,
    threat: Threat,
) -> CascadeOutcome:
    """Runs members on images whose clean answers are given."""
    data = LabelledImages(torch.from_numpy(images), labels)
    clean = CleanOutcome(labels, logits, torch.ones(len(labels), dtype=torch.bool))
    kept = torch.ones(len(labels), dtype=torch.bool)
    begun = CascadeOutcome.begin(threat, "test", clean, data.images, kept)
    held = HeldModel(model, model)
    return run_cascade(held, data, begun, members, seed=0, batching=Batching(16, torch.device("cpu")))


def test_outcomes_add_up_and_repeat(model: Any) -> None:
    suite = Suite(name="test", members=(*MEMBERS, APGD(loss="margin", steps=40)))
    first, again = (evaluate(model, Threat(eps=0.05), suite) for _ in range(2))
    assert first.clean_acc.count == 36
    assert 0 < first.robust_acc.count < 36
    assert str(first.outcomes.to_pylist()) == str(again.outcomes.to_pylist())
    assert first.status == "ok"
    clean, robust = first.metrics.clean, first.metrics.robust
    assert clean.balanced_acc == first.balanced_acc > robust.balanced_acc == first.robust_balanced_acc
    assert clean.macro_f1 > robust.macro_f1
    assert first.metrics == again.metrics
    standing = np.array(first.outcomes["correct"])
    assert [attack.name for attack in first.attacks[:3]] == [member.name for member in suite.members]
    for member in first.attacks:
        attacked = np.array(first.outcomes[f"{member.name}/attacked"])
        fooled = np.array(first.outcomes[f"{member.name}/fooled"])
        # Gates attack some of what stands.
        assert np.array_equal(attacked, standing) or member.name.startswith("gate-")
        assert not (attacked & ~standing).any()
        assert not (fooled & ~attacked).any()
        assert (np.array(first.outcomes[f"{member.name}/distance"])[fooled] <= 0.05 + 1e-5).all()
        standing &= ~fooled
    assert np.array_equal(standing, np.array(first.outcomes["robust"]))
    assert first.robust_acc.count == standing.sum()


def test_cascade_equals_every_attack_on_every_image(model: Any) -> None:
    """Members without randomness, so that skipping fallen images changes nothing for the others."""
    images, labels = data(model)
    pixels, targets = torch.from_numpy(images), torch.from_numpy(labels)
    fmodel = foolbox.PyTorchModel(model, bounds=(0, 1))
    standing = model(pixels.float() / 255).argmax(1) == targets
    attacks = [foolbox.attacks.LinfFastGradientAttack(), foolbox.attacks.LinfDeepFoolAttack(steps=5)]
    for attack in attacks:
        _, clipped, _ = attack(fmodel, pixels.float() / 255, targets, epsilons=0.02)
        standing &= model(clipped).argmax(1) == targets
    suite = Suite(name="t", version=1, members=(FullFGSM(), DeepFool(steps=5)))
    ours = evaluate(model, Threat(eps=0.02), suite)
    assert np.array_equal(np.array(ours.outcomes["robust"]), standing.numpy())


class Cheat(Member):
    """Returns images far outside the threat model."""

    kind: Literal["cheat"] = "cheat"

    geometries = ("linf",)

    def run(self, model: Any, images: Any, labels: Any, threat: Any, seed: int) -> Any:
        return 1 - images


def test_an_image_that_breaks_the_threat_model_is_not_counted(model: Any) -> None:
    images, labels = data(model)
    logits = torch.eye(3)[labels]
    outcome = cascade(model, images, torch.from_numpy(labels), logits, [Cheat(kind="cheat")], THREAT)
    assert outcome.members[0].num_rejected == 40
    assert outcome.standing.all()
    assert torch.equal(outcome.worst_logits, logits)


def test_the_worst_case_is_what_fooled_or_came_closest(model: Any) -> None:
    images, labels = data(model)
    pixels, targets = torch.from_numpy(images).float() / 255, torch.from_numpy(labels)
    fmodel = foolbox.PyTorchModel(model, bounds=(0, 1))
    clean = model(pixels).detach()
    expected, standing = clean.clone(), clean.argmax(1) == targets
    fooled_by = []
    for attack in (foolbox.attacks.LinfFastGradientAttack(), foolbox.attacks.LinfDeepFoolAttack(steps=5)):
        _, clipped, _ = attack(fmodel, pixels, targets, epsilons=0.02)
        logits = model(clipped).detach()
        fooled = standing & (logits.argmax(1) != targets)
        closer = margin_by_hand(logits, labels) < margin_by_hand(expected, labels)
        expected[standing & (fooled | closer)] = logits[standing & (fooled | closer)]
        standing &= ~fooled
        fooled_by.append(int(fooled.sum()))
    outcome = cascade(model, images, targets, clean, (FullFGSM(), DeepFool(steps=5)), Threat(eps=0.02))
    assert [record.num_fooled for record in outcome.records()] == fooled_by
    assert torch.allclose(outcome.worst_logits, expected, atol=1e-4)
    assert torch.equal(outcome.worst_logits[::10], clean[::10])
    assert torch.equal(outcome.worst_logits.argmax(1) == targets, outcome.standing)


def margin_by_hand(logits: torch.Tensor, labels: np.ndarray) -> torch.Tensor:
    rows = [
        float(row[label] - max(value for other, value in enumerate(row) if other != label))
        for row, label in zip(logits, labels, strict=True)
    ]
    assert torch.allclose(torch.tensor(rows), margins(logits, torch.from_numpy(labels)))
    return torch.tensor(rows)


def test_model_is_left_as_it_was(model: Any) -> None:
    model.train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    evaluate(model, labeller=model.eval())
    model.train()
    evaluate(model, labeller=model)
    assert all(module.training for module in model.modules())
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert set(before) == set(model.state_dict())


def test_wilson_against_published_values() -> None:
    # Newcombe 1998, table I: 81 of 263 and 15 of 148.
    assert (wilson(81, 263).low, wilson(81, 263).high) == pytest.approx((0.2553, 0.3662), abs=5e-5)
    assert (wilson(15, 148).low, wilson(15, 148).high) == pytest.approx((0.0624, 0.1605), abs=5e-5)
    assert (wilson(0, 20).low, wilson(20, 20).high) == (0.0, 1.0)


def test_fold_spread_is_over_stratified_folds() -> None:
    labels = np.repeat([0, 1], [20, 80])
    spread = fold_spread(labels == 1, np.zeros(100, bool), labels, seed=0)
    assert spread is not None
    assert (spread.clean_acc_mean, spread.clean_acc_std) == pytest.approx((0.8, 0.0))
    assert fold_spread(labels[:9] == 1, labels[:9] == 1, labels[:9], seed=0) is None


def test_probe_separates_what_can_be_separated() -> None:
    labels = np.arange(60) % 3
    features = np.random.default_rng(0).normal(size=(60, 4)) + 8 * np.eye(4)[labels]
    probe = LinearProbe.fit(features[:40], labels[:40])
    assert probe.balanced_acc(features[40:], labels[40:]) == 1.0
    two = LinearProbe.fit(features[labels < 2], labels[labels < 2])
    assert two.balanced_acc(features[labels < 2], labels[labels < 2]) == 1.0


ALL_SUITES = [(name, norm) for name in get_args(SuiteName) for norm in get_args(Geometry)]


@pytest.mark.parametrize(("name", "norm"), ALL_SUITES)
def test_a_suite_s_members_attack_in_its_norm(name: Any, norm: Any) -> None:
    suite = suite_for(name, norm)
    assert all(norm in member.geometries for member in suite.members)
    two, ten = suite.members_for(2), suite.members_for(10)
    assert two
    assert ten == list(suite.members)
    # It takes the margin there by itself (test_shrinking.py).
    others = [member for member in two if not isinstance(member, ShrinkingAPGD)]
    assert not any(getattr(member, "loss", None) == "dlr" for member in others)


def test_published_suites_do_not_change() -> None:
    """A record names its suite by version and hash: change a suite and it needs a new version."""
    hashes = {f"{name}-{norm}": suite_for(name, norm).hash for name, norm in ALL_SUITES}
    assert len(set(hashes.values())) == len(ALL_SUITES)
    assert hashes == PUBLISHED


def test_a_recipe_s_suite_is_looked_for_before_training(tiny_recipe: Any, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"evaluation\.suite: no suite 'quik'"):
        launch(tiny_recipe(evaluation__suite="quik"), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_own_suites_are_read_and_refused(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("name: mine\nmembers:\n  - {kind: fgsm}\n  - {kind: pgd, steps: 3, rel_stepsize: 0.5}\n")
    assert [member.name for member in suite_for(str(path), "linf").members] == ["fgsm", "pgd-3"]
    with pytest.raises(RecipeError, match="the member fgsm attacks in linf, l2, not in l1"):
        suite_for(str(path), "l1")
    path.write_text("name: mine\nmembers:\n  - {kind: fgsm}\n  - {kind: fgsm}\n")
    with pytest.raises(RecipeError, match="fgsm is given twice"):
        suite_for(str(path), "linf")
    path.write_text("name: mine\nmembers:\n  - {kind: fgms}\n")
    with pytest.raises(RecipeError, match=r"mine.yaml: 'members.0': no kind 'fgms'. Kinds: .*'fgsm'"):
        suite_for(str(path), "linf")
    with pytest.raises(RecipeError, match=r"no suite 'quik'\. Suites: quick, standard, full, or"):
        suite_for("quik", "linf")


@pytest.mark.parametrize("threat", [Threat(norm="l2", eps=3), Threat(norm="l1", eps=40)], ids=repr)
def test_quick_suites_run_and_repeat(model: Any, threat: Threat) -> None:
    suite = suite_for("quick", threat.norm)
    first, again = (evaluate(model, threat, suite) for _ in range(2))
    assert [attack.name for attack in first.attacks][: len(suite.members)] == [m.name for m in suite.members]
    assert first.robust_acc.count < first.clean_acc.count
    assert not any(attack.num_rejected for attack in first.attacks)
    assert np.array_equal(np.array(first.outcomes["robust"]), np.array(again.outcomes["robust"]))


PUBLISHED = {
    "quick-linf": "4050b2407cf1126f",
    "quick-l2": "e10dfd517128ae4c",
    "quick-l1": "2cd044815c36f21d",
    "quick-l0": "9cd49d17cbbd9de0",
    "quick-semantic": "7c1b285b9c848d63",
    "standard-linf": "e431638e238aef75",
    "standard-l2": "2982286b2d7c2c5c",
    "standard-l1": "703226c6ef4d1a09",
    "standard-l0": "f6ef36bb993c1971",
    "standard-semantic": "71538a86b7b69ec6",
    "full-linf": "e1feebb91befd449",
    "full-l2": "c29df5ef95c2a5a5",
    "full-l1": "7a59c872b8087e77",
    "full-l0": "935ddd17a3cd03c7",
    "full-semantic": "b7e14c9974e8f9b7",
    "quick-patch": "acc230b666307d52",
    "standard-patch": "f57350871447771d",
    "full-patch": "6c05bc81f42ed7af",
}


class Linear(nn.Module):
    """Two classes apart by one plane, so that the nearest adversarial is known."""

    def __init__(self) -> None:
        super().__init__()
        weight = torch.randn(3 * 8 * 8, generator=torch.Generator().manual_seed(0))
        self.register_buffer("weight", weight)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        score = (images - 0.5).flatten(1) @ self.weight  # type: ignore[operator]
        return torch.stack([-score, score], dim=1)


@pytest.mark.parametrize("member", [FMNMember(), EADMember()], ids=repr)
def test_minimum_norm_attacks_find_the_nearest_point_in_l1(member: Any) -> None:
    """For a linear model it moves along the largest weight alone, by |score| over that weight."""
    model = Linear()
    images = np.random.default_rng(0).integers(118, 138, (16, 3, 8, 8), dtype=np.uint8)
    pixels = torch.from_numpy(images)
    logits = model(pixels.float() / 255)
    nearest = logits[:, 0].abs() / model.weight.abs().max()  # type: ignore[operator]
    assert nearest.max() < 0.45
    outcome = cascade(model, images, logits.argmax(1), logits, [member], Threat(norm="l1", eps=10.0))
    fooled, found = outcome.members[0].fooled, outcome.members[0].distance
    assert fooled.double().mean() >= 0.8  # FMN may stop just short of the plane
    assert (found >= nearest * (1 - 1e-4))[fooled].all()
    assert (found <= nearest * 1.1 + 0.02)[fooled].all()


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_validity_allows_float_error_and_no_more(norm: Any) -> None:
    eps = {"linf": 0.1, "l2": 1.0, "l1": 20.0}[norm]
    clean = torch.full((3, 3, 8, 8), 0.5)
    direction = torch.ones_like(clean)
    direction /= torch.linalg.vector_norm(direction[0], {"linf": torch.inf, "l2": 2, "l1": 1}[norm])
    factors = torch.tensor([0.9, 1 + 5e-6, 1.001]).view(-1, 1, 1, 1)
    valid = is_valid(clean, clean + eps * factors * direction, Threat(norm=norm, eps=eps))
    assert valid.tolist() == [True, True, False]
