"""Auto-PGD and PGD for evaluation: properties, worked schedules, known optima, and torchattacks."""

import math
from typing import Any

import pytest
import torch
import torchattacks
from torch import Tensor, nn

from temper.attacks import APGD, PGD, GoalAPGD, GoalPGD, MarginPGD, Member, apgd, attack_mode
from temper.attacks.apgd import APGDAscent, checkpoints
from temper.attacks.ascent import Problem
from temper.attacks.losses import is_fooled, losses_of
from temper.attacks.norms import distances, random_point
from temper.errors import UsageError
from temper.spec import Threat

EPS = {"linf": 0.1, "l2": 0.5, "l1": 2.0}
ATTACKS: tuple[Member, ...] = (
    APGD(steps=8),
    APGD(steps=8, loss="dlr"),
    APGD(steps=8, loss="margin"),
    GoalAPGD(steps=5, num_goals=2),
    MarginPGD(steps=8),
    GoalPGD(steps=5, num_goals=2),
)
each = pytest.mark.parametrize("attack", ATTACKS, ids=repr)
norms = pytest.mark.parametrize("norm", list(EPS))


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def linear(num_classes: int = 2, size: int = 4) -> nn.Sequential:
    """A linear model over 3 x size x size pixels, weights from a fixed seed."""
    layer = nn.Linear(3 * size * size, num_classes)
    with torch.no_grad():
        layer.weight.copy_(torch.randn(layer.weight.shape, generator=seeded(7)))
        layer.bias.zero_()
    return nn.Sequential(nn.Flatten(), layer).requires_grad_(False)


def standing(network: nn.Module, perturbed: Tensor, labels: Tensor) -> int:
    with torch.no_grad():
        return int((network(perturbed).argmax(1) == labels).sum())


def threat(norm: Any, eps: float | None = None) -> Threat:
    return Threat(norm=norm, eps=EPS[norm] if eps is None else eps)


@each
@norms
def test_stays_in_the_ball_raises_the_loss_and_repeats(
    attack: Member, norm: Any, hardened_digits: Any
) -> None:
    network, images, labels = hardened_digits
    images, labels = images[:48], labels[:48]
    before = images.clone()
    first, again = (attack.perturb(network, images, labels, threat(norm), seeded()) for _ in range(2))
    assert torch.equal(first, again)
    assert torch.equal(images, before)
    assert not first.requires_grad
    assert 0 <= first.min() <= first.max() <= 1
    assert distances(norm, first, images).max() <= EPS[norm] * (1 + 1e-5)
    # Towards the label whatever the loss was; a fooled image may have stopped climbing early.
    raised = losses_of("margin", network(first), labels) > losses_of("margin", network(images), labels)
    assert (raised | is_fooled(network(first), labels)).all()


@each
@norms
def test_eps_0_is_the_identity(attack: Member, norm: Any, hardened_digits: Any) -> None:
    network, images, labels = hardened_digits
    found = attack.perturb(network, images[:8], labels[:8], threat(norm, 0.0), seeded())
    assert torch.equal(found, images[:8])


@pytest.mark.parametrize("attack", [ATTACKS[0], ATTACKS[3], ATTACKS[4]], ids=repr)
def test_leaves_gradients_and_modes_as_they_were(attack: Any, model: Any, batch: Any) -> None:
    images, labels = batch
    model.train()
    statistics = {name: value.clone() for name, value in model.named_buffers()}
    with attack_mode(model):
        attack.perturb(model, images, labels, threat("linf"), seeded())
    assert all(module.training for module in model.modules())
    assert all(parameter.grad is None and parameter.requires_grad for parameter in model.parameters())
    assert all(torch.equal(value, statistics[name]) for name, value in model.named_buffers())


@norms
def test_an_image_fares_alike_in_any_batch(norm: Any, hardened_digits: Any) -> None:
    """From a given start nothing is random: rows of a batch, alone or among others that fall and leave."""
    network, images, labels = hardened_digits
    start = random_point(norm, images, 2 * EPS[norm], seeded())
    settings: Any = {"norm": norm, "eps": 1.5 * EPS[norm], "steps": 12, "loss": "margin"}
    whole = apgd(network, images, labels, start=start, **settings)
    some = torch.arange(0, 256, 7)
    part = apgd(network, images[some], labels[some], start=start[some], **settings)
    assert 0 < whole.fooled.sum() < 256
    assert torch.equal(part.fooled, whole.fooled[some])
    assert torch.allclose(part.perturbed, whole.perturbed[some], atol=1e-5)


def test_fooled_images_leave_the_batch(hardened_digits: Any) -> None:
    """The passes that a run asks for are counted at the model: fewer than all images at every step."""
    network, images, labels = hardened_digits
    asked: list[int] = []

    def counted(points: Tensor) -> Tensor:
        asked.append(len(points))
        return network(points)

    found = apgd(counted, images, labels, "linf", 0.3, steps=20, generator=seeded())
    assert found.fooled.float().mean() > 0.5
    assert asked[0] == 256
    assert sum(asked) < 0.6 * 256 * 21
    # A batch is repacked once a quarter of it is done, so before the last step most of it stood.
    assert asked[-1] * 0.75 <= max(4, 256 - int(found.fooled.sum())) / 0.75


@norms
def test_each_image_may_have_its_own_eps(norm: Any, hardened_digits: Any) -> None:
    network, images, labels = hardened_digits
    eps = torch.linspace(0, 2 * EPS[norm], 256)
    found = apgd(network, images, labels, norm, eps, steps=5, generator=seeded())
    lengths = distances(norm, found.perturbed, images)
    assert (lengths <= eps * (1 + 1e-5) + 1e-6).all()
    assert (lengths[1:] > 0.5 * eps[1:]).double().mean() > 0.9
    same = apgd(network, images, labels, norm, torch.full((256,), EPS[norm]), steps=5, generator=seeded())
    one = apgd(network, images, labels, norm, EPS[norm], steps=5, generator=seeded())
    assert torch.equal(same.perturbed, one.perturbed)


@pytest.mark.parametrize(
    "eps", [torch.ones(3), torch.full((4,), -1.0), torch.full((4,), float("nan")), 300.0]
)
def test_an_eps_that_cannot_be_meant_is_refused(eps: Any) -> None:
    images, labels = torch.rand(4, 3, 4, 4), torch.zeros(4, dtype=torch.int64)
    with pytest.raises(ValueError, match="eps is"):
        apgd(linear(), images, labels, "linf", eps)


def test_losses_are_refused_where_classes_are_too_few(model: Any, batch: Any) -> None:
    """The model has three classes, so DLR towards goals is not defined, and plain DLR is."""
    images, labels = batch
    APGD(loss="dlr", steps=1).perturb(model, images, labels, threat("linf"))
    with pytest.raises(UsageError, match="dlr towards goal labels needs at least 4 classes, the model has 3"):
        apgd(model, images, labels, "linf", 0.1, loss="dlr", goal_labels=(labels + 1) % 3)
    # An attack of a suite takes the margin instead.
    GoalAPGD(steps=1).perturb(model, images, labels, threat("linf"))


def test_a_norm_that_an_attack_does_not_know_is_refused(model: Any, batch: Any) -> None:
    with pytest.raises(ValueError, match="apgd supports the norms linf and l2 and l1, got l0"):
        APGD().perturb(model, *batch, Threat(norm="l0", eps=4))


def test_checkpoints_follow_the_formula() -> None:
    """p0 = 0, p1 = 0.22, p(j+1) = p(j) + max(p(j) - p(j-1) - 0.03, 0.06), each times n and rounded up."""
    assert checkpoints(100) == [22, 41, 57, 70, 80, 87, 93, 99]
    assert checkpoints(20) == [5, 9, 12, 14, 16, 18, 19, 20]
    for steps in (1, 7, 33, 50, 1000):
        shares = [0.0, 0.22]
        while shares[-1] + max(shares[-1] - shares[-2] - 0.03, 0.06) <= 1 + 1e-9:
            shares.append(shares[-1] + max(shares[-1] - shares[-2] - 0.03, 0.06))
        wanted = sorted({math.ceil(round(share * steps, 6)) for share in shares[1:]})
        assert checkpoints(steps) == wanted


class Course(APGDAscent):
    """APGD that writes down its step sizes and losses."""

    def adapt(self, step: int) -> None:
        visited = self.climb.loss.clone()
        super().adapt(step)
        self.course.append((visited, self.climb.step_size.flatten().clone(), self.climb.current.clone()))


def test_step_sizes_are_halved_by_the_rule(hardened_digits: Any) -> None:
    """The rule is applied again to the losses that were seen, image by image, in plain Python."""
    network, images, labels = hardened_digits
    eps = torch.full((256, 1, 1, 1), 0.08)
    problem = Problem(network, "linf", "cross_entropy", images, labels, eps)
    fooled = apgd(network, images, labels, "linf", 0.08, steps=50, start=images).fooled
    chosen = (~fooled).nonzero().flatten()[:24]
    ascent = Course(problem.rows(chosen), images[chosen], 50)
    ascent.course = []
    ascent.run(50)
    with torch.no_grad():
        first = losses_of("cross_entropy", network(images[chosen]), labels[chosen])
    assert not ascent.found.fooled.any()
    num_halvings = 0
    for row in range(len(chosen)):
        size, halved, best, best_before, last, rises, last_checkpoint = (
            0.16,
            False,
            *[float(first[row])] * 3,
            0,
            0,
        )
        for step, (losses, sizes, _) in enumerate(ascent.course, start=1):
            loss = float(losses[row])
            rises += loss > last
            best, last = max(best, loss), loss
            if step in checkpoints(50):
                is_stuck = not halved and best == best_before
                halved = rises <= 0.75 * (step - last_checkpoint) or is_stuck
                if halved:
                    size, last = size / 2, best
                    num_halvings += 1
                best_before, rises, last_checkpoint = best, 0, step
            assert float(sizes[row]) == pytest.approx(size)
    assert 0 < num_halvings < len(chosen) * len(checkpoints(50))


def known_optimum(norm: str, direction: Tensor, eps: float) -> Tensor:
    """The perturbation within eps that moves a linear score most along ``direction``, away from any bound."""
    if norm == "linf":
        return eps * direction.sign()
    if norm == "l2":
        return eps * direction / direction.norm()
    flat = torch.zeros(direction.numel())
    flat[direction.abs().argmax()] = eps
    return flat.view_as(direction) * direction.sign()


@norms
@pytest.mark.parametrize("loss", ["cross_entropy", "margin"])
def test_the_optimum_of_a_linear_model_is_found(norm: Any, loss: Any) -> None:
    """Its scores are pushed out of reach, so that no image falls and every run ends at its highest loss."""
    network = linear()
    network[1].bias.copy_(torch.tensor([5.0, 0.0]))
    images = torch.full((4, 3, 4, 4), 0.5)
    labels = torch.zeros(4, dtype=torch.int64)
    eps = {"linf": 0.01, "l2": 0.1, "l1": 0.1}[norm]
    direction = (network[1].weight[1] - network[1].weight[0]).view(3, 4, 4)
    wanted = float((direction * known_optimum(norm, direction, eps)).sum())
    found = apgd(network, images, labels, norm, eps, loss=loss, steps=100, generator=seeded())
    assert not found.fooled.any()
    gained = ((found.perturbed - images) * direction).flatten(1).sum(1)
    assert gained.tolist() == pytest.approx([wanted] * 4, rel=0.01 if norm == "l1" else 1e-4)


@norms
def test_linear_models_fall_exactly_where_they_must(norm: Any) -> None:
    """Two classes: eps just above and below the distance to the boundary, for which there is a formula."""
    network = linear()
    images = 0.4 + 0.2 * torch.rand(32, 3, 4, 4, generator=seeded(1))
    labels = network(images).argmax(1)
    difference = (network[1].weight[0] - network[1].weight[1]).double()
    dual = {"linf": 1, "l2": 2, "l1": float("inf")}[norm]
    gaps = (images.double().flatten(1) @ difference).abs()
    reach = gaps / torch.linalg.vector_norm(difference, dual)
    near = reach < {"linf": 0.3, "l2": 0.3, "l1": 0.35}[norm]
    images, labels, reach = images[near], labels[near], reach[near].float()
    assert len(images) >= 3
    above = apgd(network, images, labels, norm, 1.02 * reach, steps=50, generator=seeded())
    below = apgd(network, images, labels, norm, 0.98 * reach, steps=50, generator=seeded())
    assert above.fooled.all()
    assert not below.fooled.any()


@pytest.mark.parametrize("scale", [1.0, 1e4])
def test_dlr_and_margin_see_through_saturated_logits(scale: float, hardened_digits: Any) -> None:
    """Scaled by 10,000 the cross-entropy has no gradient left in float32; DLR and the margin do not care."""
    network, images, labels = hardened_digits

    def scaled(points: Tensor) -> Tensor:
        return scale * network(points)

    counts = {
        loss: int(
            (~apgd(scaled, images, labels, "linf", 0.1, loss=loss, steps=20, generator=seeded()).fooled).sum()
        )
        for loss in ("cross_entropy", "dlr", "margin")
    }
    assert abs(counts["dlr"] - counts["margin"]) <= 3
    if scale > 1:
        assert counts["cross_entropy"] > counts["dlr"] + 10
    else:
        assert abs(counts["cross_entropy"] - counts["dlr"]) <= 5


def test_a_model_that_lets_no_gradient_through_is_attacked_all_the_same(hardened_digits: Any) -> None:
    network, images, labels = hardened_digits
    found = apgd(
        lambda points: network(points.detach().round(decimals=1)), images, labels, "linf", 0.3, steps=3
    )
    assert distances("linf", found.perturbed, images).max() <= 0.3 + 1e-6


def test_evaluation_pgd_is_no_weaker_than_plain_pgd(hardened_digits: Any) -> None:
    network, images, labels = hardened_digits
    plain = standing(network, PGD(eps=0.1, steps=20).perturb(network, images, labels, seeded()), labels)
    for attack in (MarginPGD(steps=20), GoalPGD(steps=20, num_goals=4)):
        found = attack.perturb(network, images, labels, threat("linf", 0.1), seeded())
        assert standing(network, found, labels) <= plain + 1


@pytest.mark.parametrize(("norm", "eps"), [("linf", 0.1), ("l2", 0.5)])
@pytest.mark.parametrize("loss", ["cross_entropy", "dlr", "goal dlr"])
def test_robust_accuracy_equals_that_of_torchattacks(
    norm: Any, eps: float, loss: Any, hardened_digits: Any
) -> None:
    network, images, labels = hardened_digits
    settings: Any = {"norm": {"linf": "Linf", "l2": "L2"}[norm], "eps": eps, "n_restarts": 1}
    ours: Member
    with torch.random.fork_rng():
        if loss == "goal dlr":
            ours = GoalAPGD(steps=15, num_goals=4)
            theirs = torchattacks.APGDT(network, steps=15, n_classes=5, **settings)(images, labels)
        else:
            ours = APGD(steps=30, loss=loss)
            name = {"cross_entropy": "ce", "dlr": "dlr"}[loss]
            theirs = torchattacks.APGD(network, steps=30, loss=name, **settings)(images, labels)
    wanted = standing(network, theirs, labels)
    assert 64 < wanted < 240
    found = ours.perturb(network, images, labels, threat(norm, eps), seeded())
    assert abs(standing(network, found, labels) - wanted) <= 1
