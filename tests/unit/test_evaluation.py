from typing import Any, Literal

import foolbox
import numpy as np
import pytest
import torch
from torch import nn

from temper.evaluation import evaluate_images, linear_probe, suite_for, wilson
from temper.evaluation.cascade import run_cascade
from temper.evaluation.members import DeepFoolMember, FGSMMember, Member, PGDMember
from temper.evaluation.passes import CountedModel
from temper.evaluation.statistics import fold_spread
from temper.evaluation.suite import Suite
from temper.spec import Threat

THREAT = Threat(eps=0.1)
MEMBERS = (FGSMMember(), PGDMember(steps=5, rel_stepsize=0.3, restarts=2))


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
        threat=threat,
        suite=suite,
        seed=0,
        **changes,
    )


def test_outcomes_add_up_and_repeat(model: Any) -> None:
    first, again = evaluate(model), evaluate(model)
    assert first.clean_acc.count == 36
    assert 0 < first.robust_acc.count < 36
    assert str(first.outcomes.to_pylist()) == str(again.outcomes.to_pylist())
    assert first.status == "ok"
    standing = np.array(first.outcomes["correct"])
    for member in MEMBERS:
        attacked = np.array(first.outcomes[f"{member.name}/attacked"])
        fooled = np.array(first.outcomes[f"{member.name}/fooled"])
        assert np.array_equal(attacked, standing)
        assert not (fooled & ~attacked).any()
        assert (np.array(first.outcomes[f"{member.name}/distance"])[fooled] <= 0.1 + 1e-5).all()
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
    suite = Suite(name="t", version=1, members=(FGSMMember(), DeepFoolMember(steps=5)))
    ours = evaluate(model, Threat(eps=0.02), suite)
    assert np.array_equal(np.array(ours.outcomes["robust"]), standing.numpy())


class Cheat(Member):
    """Returns images far outside the threat model."""

    kind: Literal["cheat"] = "cheat"

    def run(self, fmodel: Any, images: Any, labels: Any, norm: Any, eps: float) -> Any:
        return 1 - images


def test_an_image_that_breaks_the_threat_model_is_not_counted(model: Any) -> None:
    images, labels = data(model)
    correct = torch.ones(40, dtype=torch.bool)
    outcome = run_cascade(
        CountedModel(model).eval(),
        torch.from_numpy(images),
        torch.from_numpy(labels),
        correct,
        [Cheat(kind="cheat")],
        THREAT,
        seed=0,
        batch_size=16,
        device=torch.device("cpu"),
    )
    assert outcome.members[0].record.num_rejected == 40
    assert outcome.members[0].record.num_fooled <= 4


class Dropping(nn.Module):
    def __init__(self, model: nn.Module, softmax: bool = False, noisy: bool = False) -> None:
        super().__init__()
        self.model, self.softmax, self.noisy = model, softmax, noisy

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        logits = self.model(images)
        if self.noisy:
            logits = logits + torch.randn_like(logits)
        return logits.softmax(1) if self.softmax else logits


class StaysInTraining(Dropping):
    def train(self, mode: bool = True) -> "StaysInTraining":
        return super().train(True)


@pytest.mark.parametrize(
    ("build", "gate"),
    [
        (lambda model: Dropping(model, softmax=True), "logits"),
        (lambda model: Dropping(model, noisy=True), "deterministic forward"),
        (lambda model: StaysInTraining(model), "eval mode"),
    ],
)
def test_gates_block(model: Any, build: Any, gate: str) -> None:
    evaluation = evaluate(build(model), labeller=model)
    assert evaluation.status == "blocked"
    assert gate in [record.name for record in evaluation.gates if not record.passed]


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


def test_suites_differ_in_hash_and_probe_separates() -> None:
    hashes = {suite_for(name, norm).hash for name in ("quick", "standard") for norm in ("linf", "l2")}  # type: ignore[arg-type]
    assert len(hashes) == 4
    labels = np.arange(60) % 2
    features = np.random.default_rng(0).normal(size=(60, 4)) + 5 * labels[:, None]
    assert linear_probe(features[:40], labels[:40], features[40:], labels[40:]) == 1.0


def test_l2_suite_runs(model: Any) -> None:
    evaluation = evaluate(model, Threat(norm="l2", eps=0.5), suite_for("quick", "l2"))
    assert evaluation.status == "ok"
    assert [attack.name for attack in evaluation.attacks] == ["fgsm", "pgd-50", "ddn-50"]
