import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from temper.attacks import FullFGSM
from temper.evaluation import CascadePlan, Evaluation, EvaluationPlan, Suite, evaluate_images
from temper.evaluation.examples import choose_examples, worst_first
from temper.evaluation.figure import as_png, draw_figure, magnification, magnified, place_picture, shorten
from temper.records import read_record, sha256_of
from temper.spec import Threat

CPU = torch.device("cpu")
NAMES = ["$x_1$ costs $5", "right of way at the next crossing, ahead", "停"]


class Brightness(nn.Module):
    """Logits from the mean colour of the upper left corner."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 3)
        nn.init.eye_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = 20 * self.linear(images[:, :, :4, :4].mean((2, 3)))
        return logits


def evaluate(size: int = 8, eps: float = 0.1, curve: tuple[float, ...] = ()) -> tuple[nn.Module, Evaluation]:
    generator = np.random.default_rng(0)
    labels = np.arange(24) % 3
    images = generator.integers(100, 120, (24, 3, size, size), dtype=np.uint8)
    images[np.arange(24), labels] += np.arange(2, 26, dtype=np.uint8)[:, None, None]
    threat = Threat(norm="linf", eps=eps)
    plan = EvaluationPlan(
        main=CascadePlan(threat=threat, suite=Suite(name="own", members=(FullFGSM(),))), curve=curve, seed=0
    )
    torch.manual_seed(0)
    model = Brightness().eval()
    return model, evaluate_images(model, images, labels, np.arange(24), classes=NAMES, plan=plan)


def draw(model: nn.Module, evaluation: Evaluation, **options: Any) -> bytes:
    robust = {name: accs["robust_acc"] for name, accs in evaluation.per_class.items()}
    examples = choose_examples(model, evaluation.adversarial, NAMES, robust, max_examples=8, device=CPU)
    return draw_figure(evaluation, examples, "a name", "some data", **options)


def test_the_worst_classes_come_first_each_once_before_any_twice() -> None:
    labels = np.array([0, 0, 0, 1, 2, 2])
    robust_acc = [0.2, 0.9, 0.1]
    assert worst_first(labels, robust_acc, 8).tolist() == [4, 5, 0, 1, 2, 3]
    assert worst_first(labels, robust_acc, 3).tolist() == [4, 0, 3]
    assert worst_first(labels, robust_acc, 2).tolist() == [4, 0]
    assert worst_first(labels[:0], robust_acc, 3).tolist() == []


def test_confidences_are_softmaxes_of_the_model_s_own_answers() -> None:
    model, evaluation = evaluate()
    kept = evaluation.adversarial
    robust = dict.fromkeys(NAMES, 0.0)
    examples = choose_examples(model, kept, NAMES, robust, max_examples=99, device=CPU)
    assert len(examples) == len(kept.rows) > 3
    order = np.argsort(kept.labels, kind="stable")
    for example, place in zip(examples, order, strict=True):
        assert example.label == NAMES[kept.labels[place]] == example.before.class_name
        assert example.after.class_name == NAMES[kept.prediction[place]] != example.label
        logits = model(kept.images[place : place + 1])[0].detach()
        expected = float(logits.exp().max() / logits.exp().sum())
        assert example.after.confidence == pytest.approx(expected, abs=1e-5)
        assert np.abs(example.perturbation).max() <= 0.1 + 1e-5


@pytest.mark.parametrize("eps", [0.1, 8 / 255, 0.5, 1.0, 0.0001])
def test_perturbations_are_magnified_about_grey_by_a_round_factor(eps: float) -> None:
    signs = np.random.default_rng(0).choice([-1, 0, 1], (3, 4, 4))
    change = (eps * signs).astype(np.float32)
    factor = magnification(change)
    assert 0.45 < factor * eps < 0.501
    assert float(f"{factor:.2g}") == pytest.approx(factor)
    shown = magnified(change, factor)
    np.testing.assert_allclose(shown + magnified(-change, factor), 1, atol=1e-6)
    np.testing.assert_array_equal(shown[signs == 0], 0.5)
    np.testing.assert_allclose((shown - 0.5)[signs != 0], (factor * change)[signs != 0], atol=1e-3)


def test_no_change_is_grey() -> None:
    nothing = np.zeros((3, 4, 4), np.float32)
    assert magnification(nothing) == 1
    assert (magnified(nothing, 1) == 0.5).all()


@pytest.mark.parametrize("size", [8, 32, 224])
def test_the_figure_shows_images_of_any_size(size: int) -> None:
    model, evaluation = evaluate(size, curve=(0.01, 0.05))
    drawn = draw(model, evaluation)
    assert drawn == draw(model, evaluation)
    with Image.open(io.BytesIO(drawn)) as picture:
        assert picture.format == "PNG"
        assert picture.width == 1210
        assert 500 < picture.height < 1500
        pixels = np.asarray(picture.convert("RGB")).astype(int)
    # The middle of the first picture is the clean image's own colour, as nothing else in the figure is.
    first = evaluation.adversarial.clean[0].numpy()
    left, top, side = (round(110 * inches) for inches in (0.2, 0.95, 1.3))
    inside = pixels[top + 3 : top + side - 3, left + 3 : left + side - 3].reshape(-1, 3)
    assert inside.min() >= 95
    assert inside.max() <= 150
    assert first.min() >= 95


SHAPES = {(8, 16): (55, 110), (16, 8): (110, 55), (8, 8): (110, 110)}


@pytest.mark.parametrize(("shape", "inside"), SHAPES.items())
def test_a_picture_keeps_its_aspect(shape: tuple[int, int], inside: tuple[int, int]) -> None:
    """In the middle of its square, which has 110 pixels here."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(2, 2), dpi=110, facecolor="white")
    FigureCanvasAgg(figure)
    place_picture(figure, 0.5, 0.5, 1.0, np.full((3, *shape), 128, np.uint8))
    with Image.open(io.BytesIO(as_png(figure))) as picture:
        grey = np.argwhere((np.asarray(picture.convert("RGB")) == 128).all(2))
    sides, middle = np.ptp(grey, axis=0) + 1, (grey.min(0) + grey.max(0)) / 2
    assert (abs(sides - inside) <= 3).all()
    assert (abs(middle - 109.5) <= 2).all()


def test_the_figure_without_examples_and_with_a_block() -> None:
    model, evaluation = evaluate(eps=0.0)
    assert len(evaluation.adversarial.rows) == 0
    plain = draw(model, evaluation)
    gates = [gate.model_copy(update={"passed": False}) for gate in evaluation.gates]
    blocked = replace(evaluation, gates=gates)
    assert draw(model, blocked) != plain


def test_long_names_are_cut() -> None:
    assert shorten("stop") == "stop"
    assert shorten("right of way at the next crossing") == "right of way at the n…"
    assert len(shorten("x" * 99, 10)) == 10
    assert shorten("two\nlines") == "two lines"


def test_an_evaluated_run_has_its_figure(evaluated_run: Path) -> None:
    record = read_record(evaluated_run / "record.json")
    assert record.files["figure"].path == "figure.png"
    assert record.files["figure"].sha256 == sha256_of(evaluated_run / "figure.png")
