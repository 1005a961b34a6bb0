"""What gates must not take for a fault: attacks that are weak alone, poor models, and numbers of zero."""

import importlib
import math
from typing import Any, ClassVar, Literal

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from temper.attacks import APGD, FullFGSM, LastPGD, Member, Square
from temper.evaluation import CascadePlan, Evaluation, EvaluationPlan, Suite, evaluate_images
from temper.evaluation.metrics import auroc
from temper.models import ModelSpec, build_model
from temper.records.suite import OPTIMISM
from temper.spec import Threat

models, zoo = (importlib.import_module(name) for name in ("honest_models", "honest_zoo"))

STRONG = APGD(loss="margin", steps=20)


def evaluate(
    model: nn.Module, images: np.ndarray, labels: np.ndarray, members: Any, eps: float, **changes: Any
) -> Evaluation:
    name, version = changes.pop("suite", ("test", 1))
    suite = Suite.model_construct(name=name, version=version, members=tuple(members))
    main = CascadePlan.model_construct(threat=Threat(eps=eps), suite=suite)
    plan = EvaluationPlan.model_construct(main=main, seed=0, **changes)
    with torch.no_grad():
        names = [str(label) for label in range(model(torch.zeros(1, 3, 8, 8)).shape[1])]
    return evaluate_images(model, images, labels, np.arange(len(labels)), classes=names, plan=plan)


def failed(evaluation: Evaluation) -> list[str]:
    return [gate.name for gate in evaluation.gates if not gate.passed]


def detail(evaluation: Evaluation, name: str) -> str:
    return next(gate.detail for gate in evaluation.gates if gate.name == name)


# --- planted adversarial ------------------------------------------------------------------------


class Waves(nn.Module):
    """Three classes, each the side of a plane, behind waves of ``height`` on each pixel: steep and honest."""

    def __init__(self, height: float) -> None:
        super().__init__()
        self.height = height
        weight = torch.randn(3 * 8 * 8, 3, generator=torch.Generator().manual_seed(0)) / 8
        self.register_buffer("weight", weight)

    def forward(self, images: Tensor) -> Tensor:
        waves = images + self.height * torch.sin(2 * math.pi * images / 0.15)
        logits: Tensor = (waves - 0.5).flatten(1) @ self.weight  # type: ignore[operator]
        return logits


def on_waves(members: Any, height: float = 0.2, eps: float = 0.1, **changes: Any) -> Evaluation:
    """On images whose labels are the model's answers."""
    model = Waves(height)
    images = np.random.default_rng(0).integers(0, 256, (64, 3, 8, 8), dtype=np.uint8)
    with torch.no_grad():
        labels = model(torch.from_numpy(images).float() / 255).argmax(1).numpy()
    return evaluate(model, images, labels, members, eps, **changes)


class Lazy(Member):
    """Says that it sees gradients, and does nothing."""

    kind: Literal["lazy"] = "lazy"
    geometries: ClassVar[Any] = ("linf",)

    def run(self, model: Any, images: Tensor, labels: Any, threat: Any, seed: int) -> Tensor:
        return images


class Asleep(Lazy):
    """Another one."""

    kind: Literal["asleep"] = "asleep"  # type: ignore[assignment]


def test_one_step_that_overshoots_does_not_block_a_suite_that_finds_everything() -> None:
    evaluation = on_waves((FullFGSM(), STRONG))
    assert failed(evaluation) == []
    seen = detail(evaluation, "planted adversarial")
    assert "the suite found 100 % of the 8 planted" in seen
    assert "fgsm 12 %" in seen
    assert "apgd-margin-20 100 %" in seen


def test_one_step_alone_on_a_steep_model_is_too_weak_a_suite() -> None:
    evaluation = on_waves((FullFGSM(),))
    assert {"planted adversarial", "more steps"} <= set(failed(evaluation))
    assert "use a stronger suite" in detail(evaluation, "planted adversarial")


def test_a_suite_whose_every_attack_is_broken_blocks() -> None:
    evaluation = on_waves((Lazy(), Asleep()), height=0.0, eps=0.02)
    assert "planted adversarial" in failed(evaluation)
    seen = detail(evaluation, "planted adversarial")
    assert "found 0 % of the 8 planted (lazy 0 %, asleep 0 %)" in seen


def test_a_broken_attack_beside_one_that_works_is_named_and_does_not_block() -> None:
    evaluation = on_waves((Lazy(), STRONG), height=0.0, eps=0.02)
    assert failed(evaluation) == []
    assert "lazy 0 %, apgd-margin-20 100 %" in detail(evaluation, "planted adversarial")


def test_a_broken_attack_beside_one_that_is_too_weak_blocks() -> None:
    assert "more steps" in failed(on_waves((FullFGSM(), Lazy())))


def test_what_the_first_of_a_kind_misses_the_next_may_find() -> None:
    """Both are one kind; alone, a single step of a tenth of eps finds nothing."""
    short, long = LastPGD(steps=1, rel_stepsize=0.1), LastPGD(steps=20, rel_stepsize=0.125)
    assert "planted adversarial" in failed(on_waves((short,), height=0.0, eps=0.02))
    evaluation = on_waves((short, long), height=0.0, eps=0.02)
    assert "planted adversarial" not in failed(evaluation)
    assert "found 100 %" in detail(evaluation, "planted adversarial")


def test_a_suite_that_follows_no_gradients_is_not_asked_for_planted_ones() -> None:
    evaluation = on_waves((Square(num_queries=50),), height=0.0, eps=0.02)
    assert "no attack of the suite follows gradients" in detail(evaluation, "planted adversarial")
    assert "planted adversarial" not in failed(evaluation)


# --- where nothing stands -----------------------------------------------------------------------


class Oracle(Lazy):
    """Breaks every image with one answer that it knows, and finds no planted example."""

    kind: Literal["oracle"] = "oracle"  # type: ignore[assignment]

    def run(self, model: Any, images: Tensor, labels: Any, threat: Any, seed: int) -> Tensor:
        weight = Waves(0.0).weight
        own, other = weight.T[labels], weight.T[(labels + 1) % 3]  # type: ignore[index, operator]
        away = (other - own).sign().view_as(images)
        return (images + threat.eps * away).clamp(0, 1)


def test_zero_percent_cannot_be_too_high() -> None:
    evaluation = on_waves((Oracle(),), height=0.0, eps=0.2)
    assert evaluation.robust_acc.count == 0
    assert failed(evaluation) == []
    assert "almost no image is left standing" in detail(evaluation, "planted adversarial")


def test_a_number_at_a_smaller_eps_can() -> None:
    evaluation = on_waves((Oracle(),), height=0.0, eps=0.2, curve=(0.001,))
    assert evaluation.robust_acc.count == 0
    assert evaluation.curve[0].robust_acc.count > 32
    assert "planted adversarial" in failed(evaluation)


# --- normalization inside -----------------------------------------------------------------------


class Timid(nn.Module):
    """Bright images are of class 1, says a model that hardly ever dares to; it does not see beyond a range.

    Its logits tell the classes apart. More contrast takes some images beyond its threshold.
    """

    def forward(self, images: Tensor) -> Tensor:
        brightness = 20 * (images.mean((1, 2, 3)).clamp(0.45, 0.66) - 0.63)
        return torch.stack([-brightness, brightness], 1)


def bright_and_dark() -> tuple[np.ndarray, np.ndarray]:
    """200 images, two fifths of them of class 1, which are brighter by 0.05 in the mean."""
    generator = np.random.default_rng(0)
    labels = (np.arange(200) % 5 < 2).astype(np.int64)
    means = generator.normal(np.where(labels == 1, 0.58, 0.53), 0.02)
    pixels = np.broadcast_to(means[:, None, None, None], (200, 3, 8, 8))
    return np.round(255 * pixels).astype(np.uint8), labels


def test_a_poor_threshold_is_not_taken_for_another_scale() -> None:
    images, labels = bright_and_dark()
    pixels = torch.from_numpy(images).float() / 255
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in zoo.IMAGENET_MEAN_STD)
    plain, other = (Timid()(points) for points in (pixels, (pixels - mean) / std))
    truth = torch.from_numpy(labels)
    # With ImageNet's normalisation it is right far more often, and tells the classes apart less well.
    right, right_then = ((logits.argmax(1) == truth).double().mean() for logits in (plain, other))
    assert right_then > right + 0.09
    assert (auroc(plain, truth) or 0) > (auroc(other, truth) or 0)
    evaluation = evaluate(Timid(), images, labels, (STRONG,), 0.005)
    assert failed(evaluation) == []
    assert "suit the model best" in detail(evaluation, "normalization inside")


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (lambda images: (images + 1) / 2, "images * 2 - 1"),
        (lambda images: images / 255, "images * 255"),
        (lambda images: images * 0.226 + 0.449, "(images - mean) / std"),
    ],
)
@pytest.mark.parametrize("threshold", [0.555, 0.59])
def test_a_model_on_another_scale_is_told_so_even_a_poor_one(
    change: Any, code: str, threshold: float
) -> None:
    images, labels = bright_and_dark()
    network = lambda pixels: torch.stack(  # noqa: E731
        [threshold - pixels.mean((1, 2, 3)), pixels.mean((1, 2, 3)) - threshold], 1
    )
    model = zoo.Function(network, change)
    evaluation = evaluate(model, images, labels, (STRONG,), 0.005)
    assert "normalization inside" in failed(evaluation)
    assert code in detail(evaluation, "normalization inside")


def test_classes_in_another_order_are_not_taken_for_another_scale() -> None:
    """On [0,255] such a model gives one class for all, and so half of the answers are right: no better."""
    images, labels = bright_and_dark()
    network = lambda pixels: torch.stack(  # noqa: E731
        [pixels.mean((1, 2, 3)) - 0.555, 0.555 - pixels.mean((1, 2, 3))], 1
    )
    model = zoo.Function(network, lambda images: images)
    evaluation = evaluate(model, images, labels, (STRONG,), 0.005)
    right = model(torch.from_numpy(images).float() / 255).argmax(1) == torch.from_numpy(labels)
    assert right.double().mean() < 0.2
    assert "suit the model best" in detail(evaluation, "normalization inside")


def test_a_model_of_temper_has_it_inside() -> None:
    """Even if its answers to other images are the labels; one without its own mean and deviation is asked."""
    classes = {"target": ["a", "b", "c"]}
    model = build_model(ModelSpec(backbone="resnet8"), classes, image_size=8, seed=0).eval()
    images = np.random.default_rng(0).integers(0, 256, (64, 3, 8, 8), dtype=np.uint8)
    with torch.no_grad():
        labels = model(torch.from_numpy(images).float() / 255 * 2 - 1).argmax(1).numpy()
    evaluation = evaluate(model, images, labels, (STRONG,), 0.005)
    assert "a temper model" in detail(evaluation, "normalization inside")
    model.mean.zero_(), model.std.fill_(1)
    with torch.no_grad():
        labels = model(torch.from_numpy(images).float() / 255 * 255).argmax(1).numpy()
    evaluation = evaluate(model, images, labels, (STRONG,), 0.005)
    assert "a temper model" not in detail(evaluation, "normalization inside")


# --- a few of bench/honest_models.py ------------------------------------------------------------

QUICK = ("resnet8, 8 steps", "resnet8, untrained", "small_vit, 8 steps", "linear", "tanh, log-probabilities")


@pytest.mark.parametrize(
    "case", [case for case in models.on_digits() if case.name in QUICK], ids=lambda case: case.name
)
def test_honest_models_pass(case: Any) -> None:
    task = models.task_of(case.task)
    model = case.make(task)
    for threat in case.threats:
        assert failed(models.evaluate(model, task, threat, "quick")) == []


class Nearly(Lazy):
    """Attacks well, but for six images."""

    kind: Literal["nearly"] = "nearly"  # type: ignore[assignment]

    def run(self, model: Any, images: Tensor, labels: Any, threat: Any, seed: int) -> Tensor:
        found = STRONG.run(model, images, labels, threat, seed)
        found[:6] = images[:6]
        return found


class Blind(Lazy):
    """Says that it sees scores alone, so that no gate searches without gradients."""

    kind: Literal["blind"] = "blind"  # type: ignore[assignment]
    sees: ClassVar[Any] = "scores"


def test_more_steps_may_find_what_is_said_of_a_short_suite() -> None:
    """An honest network of road signs was blocked for 0.7 points, under a suite that is known to miss 3.3."""
    members = (Nearly(), Blind())
    assert "more steps" in failed(on_waves(members))
    assert "at least 2.1 points of robust accuracy were not real (allowed: 0.5)" in detail(
        on_waves(members), "more steps"
    )
    known, number = OPTIMISM["quick-linf", 3], on_waves(members).robust_acc.count
    short = on_waves(members, suite=("quick-linf", 3))
    assert known > 0.021
    assert "more steps" not in failed(short)
    assert short.robust_acc.count == number
