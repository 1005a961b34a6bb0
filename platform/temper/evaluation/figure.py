"""A picture of an evaluation: adversarial examples, the accuracy of each class, the security curve.

Matplotlib is imported late, and drawn on without its global state.
"""

import io
import math
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from temper.evaluation.examples import Answer, Example
from temper.evaluation.result import Evaluation
from temper.spec import format_ratio

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MAX_EXAMPLES = 8
MAX_CLASSES = 12
SHARP_BELOW_PX = 100
"""Images smaller than this are shown pixel by pixel."""
CLEAN, ROBUST, WRONG = "#9db8d2", "#1f4e79", "#b3261e"

# Everything is placed in inches, from the upper left corner.
WIDTH, MARGIN, HEADER, SIDE, GAP = 11.0, 0.2, 0.95, 1.3, 0.08
SAYINGS_LEFT = MARGIN + 3 * (SIDE + GAP) + 0.05
PANEL_LEFT, PANEL_WIDTH, BAR, CURVE, BETWEEN = 8.15, 2.6, 0.36, 2.1, 1.0


def draw_figure(evaluation: Evaluation, examples: Sequence[Example], name: str, data_name: str) -> bytes:
    """A PNG. The same evaluation gives the same bytes, with the same version of Matplotlib."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    bars, curve = _heights(evaluation)
    below = max(len(examples) * (SIDE + GAP), bars + 0.6 + (BETWEEN + curve if curve else 0))
    figure = Figure(figsize=(WIDTH, HEADER + below + 0.1), dpi=110, facecolor="white")
    FigureCanvasAgg(figure)
    _title(figure, evaluation, name, data_name)
    for row, example in enumerate(examples):
        _draw_example(figure, row, example)
    if not examples:
        figure.text(0.3, 0.5, "no kept image was fooled by an attack", ha="center", size=10)
    _draw_classes(axes_at(figure, PANEL_LEFT, HEADER, PANEL_WIDTH, bars), bars, evaluation)
    if curve:
        _draw_curve(axes_at(figure, PANEL_LEFT, HEADER + bars + BETWEEN, PANEL_WIDTH, curve), evaluation)
    return as_png(figure)


def as_png(figure: "Figure") -> bytes:
    """The same figure gives the same bytes."""
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        # A class name in a script that the font lacks is drawn as boxes.
        warnings.filterwarnings("ignore", message="Glyph .* missing from", category=UserWarning)
        figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()


def _heights(evaluation: Evaluation) -> tuple[float, float]:
    """Of the panel of classes, and of the curve: 0 where there is none."""
    num_classes = min(MAX_CLASSES, len(evaluation.per_class))
    return BAR * max(num_classes, 4), CURVE if len(evaluation.curve) > 1 else 0.0


def axes_at(figure: "Figure", left: float, top: float, width: float, height: float) -> "Axes":
    """Axes at a place in inches."""
    across, down = float(figure.get_figwidth()), float(figure.get_figheight())
    return figure.add_axes((left / across, 1 - (top + height) / down, width / across, height / down))


def place_picture(figure: "Figure", left: float, top: float, side: float, image: np.ndarray) -> None:
    """An image (3,H,W), uint8 or in [0,1], framed in the middle of a square at a place in inches.

    Axes for each take longer.
    """
    from matplotlib.image import BboxImage
    from matplotlib.patches import Rectangle
    from matplotlib.transforms import Bbox, TransformedBbox

    across, down = float(figure.get_figwidth()), float(figure.get_figheight())
    tall, wide = (side * length / max(image.shape[1:]) for length in image.shape[1:])
    corner = ((left + (side - wide) / 2) / across, 1 - (top + (side + tall) / 2) / down)
    width, height = wide / across, tall / down
    place = TransformedBbox(Bbox.from_bounds(*corner, width, height), figure.transFigure)
    is_small = image.shape[-1] < SHARP_BELOW_PX
    picture = BboxImage(place, origin="upper", interpolation="nearest" if is_small else "antialiased")
    picture.set_data(image.transpose(1, 2, 0))
    figure.add_artist(picture)
    figure.add_artist(
        Rectangle(corner, width, height, transform=figure.transFigure, fill=False, linewidth=0.8)
    )


def write(figure: "Figure", left: float, top: float, text: str, **style: Any) -> None:
    """A line whose upper left corner is at a place in inches; dollars are no formula."""
    x, y = left / float(figure.get_figwidth()), 1 - top / float(figure.get_figheight())
    figure.text(x, y, text, **{"va": "top", "size": 9, "parse_math": False, **style})


def shorten(text: str, size: int = 22) -> str:
    """``text`` on one line, cut where it is longer than ``size``."""
    flat = " ".join(text.split())
    return flat if len(flat) <= size else f"{flat[: size - 1].rstrip()}…"


def magnification(perturbation: np.ndarray) -> float:
    """A round factor, of two digits, by which the largest change becomes at most half the range."""
    largest = float(np.abs(perturbation).max())
    if largest == 0:
        return 1.0
    factor = 0.5 / largest
    unit = 10.0 ** (math.floor(math.log10(factor)) - 1)
    return math.floor(factor / unit + 1e-3) * unit


def magnified(perturbation: np.ndarray, factor: float) -> np.ndarray:
    """(3,H,W) in [0,1]: no change is middle grey, a change up is lighter, a change down darker."""
    return np.clip(0.5 + factor * perturbation, 0, 1)


def as_seen(example: Example) -> np.ndarray:
    """(3,H,W) the perturbation; of a grey image the mean over its channels, in each of them.

    Attacks in colour change each channel of a grey image on its own, which looks like coloured noise.
    """
    found = example.perturbation
    return np.broadcast_to(found.mean(0, keepdims=True), found.shape) if example.is_grey else found


def _title(figure: "Figure", evaluation: Evaluation, name: str, data_name: str) -> None:
    threat, suite = evaluation.adversarial.threat, evaluation.suite
    line = (
        f"{shorten(data_name, 40)}, {threat.label}, suite {suite.name}: "
        f"clean {percent(evaluation.clean_acc.value, 1)}, robust {percent(evaluation.robust_acc.value, 1)}"
    )
    write(figure, MARGIN, 0.14, shorten(name, 70), size=12, weight="bold")
    write(figure, MARGIN, 0.4, line, color="#444444")
    if evaluation.status == "blocked":
        failed = ", ".join(gate.name for gate in evaluation.gates if not gate.passed)
        blocked = f"blocked: {shorten(failed, 50)}"
        write(figure, WIDTH - MARGIN, 0.14, blocked, ha="right", size=10, weight="bold", color=WRONG)


def _draw_example(figure: "Figure", row: int, example: Example) -> None:
    top, perturbation = HEADER + row * (SIDE + GAP), as_seen(example)
    factor = magnification(perturbation)
    pictures = {
        "clean": example.clean,
        "perturbation": magnified(perturbation, factor),
        "attacked": example.clean + perturbation,
    }
    mean = ", mean of channels" if example.is_grey and not example.is_changed_alike else ""
    for column, (title, image) in enumerate(pictures.items()):
        left = MARGIN + column * (SIDE + GAP)
        place_picture(figure, left, top, SIDE, image.clip(0, 1))
        if row == 0:
            write(figure, left + SIDE / 2, top - 0.06, title, ha="center", va="baseline")
    sayings: tuple[tuple[str, dict[str, Any]], ...] = (
        (f"true: {shorten(example.label)}", {"weight": "bold"}),
        (f"clean: {_says(example.before)}", {}),
        (f"attacked: {_says(example.after)}", {"color": WRONG}),
        (f"perturbation × {factor:.3g}{mean}", {"size": 8, "color": "#777777"}),
    )
    for line, (text, style) in enumerate(sayings):
        write(figure, SAYINGS_LEFT, top + 0.2 + 0.22 * line, text, **style)


def _says(answer: Answer) -> str:
    if answer.class_name is None:
        return "nothing finite"
    return f"{shorten(answer.class_name, 18)}, {percent(answer.confidence)}"


def _draw_classes(axes: "Axes", height: float, evaluation: Evaluation) -> None:
    worst = sorted(evaluation.per_class, key=lambda name: (evaluation.per_class[name]["robust_acc"], name))
    shown = worst[:MAX_CLASSES]
    places = np.arange(len(shown))
    for offset, key, color in ((-0.2, "clean_acc", CLEAN), (0.2, "robust_acc", ROBUST)):
        values = [100 * evaluation.per_class[name][key] for name in shown]
        axes.barh(places + offset, values, height=0.4, color=color, label=key.removesuffix("_acc"))
    axes.set_yticks(places, [shorten(name) for name in shown], size=7.5, parse_math=False)
    axes.set_ylim(max(len(shown), 4) - 0.4, -0.6)
    axes.set_xlim(0, 100)
    _style(axes)
    few = len(shown) < len(worst)
    axes.set_title(
        f"accuracy of the {len(shown)} worst of {len(worst)} classes, %"
        if few
        else "accuracy, worst class first, %",
        size=9,
    )
    # Under the axis, where no bar can be.
    axes.legend(loc="upper left", bbox_to_anchor=(-0.02, -0.22 / height), ncols=2, fontsize=8, frameon=False)


def _draw_curve(axes: "Axes", evaluation: Evaluation) -> None:
    points = sorted(evaluation.curve, key=lambda point: point.eps)
    eps = [0.0, *(point.eps for point in points)]
    shares = [evaluation.clean_acc, *(point.robust_acc for point in points)]
    axes.fill_between(
        eps,
        [100 * one.low for one in shares],
        [100 * one.high for one in shares],
        color=CLEAN,
        alpha=0.5,
        linewidth=0,
    )
    axes.plot(eps, [100 * one.value for one in shares], color=ROBUST, marker="o", markersize=3, linewidth=1.4)
    axes.set_ylim(0, 100)
    axes.set_xlim(0, max(eps) * 1.03)
    ticks = _apart(eps, 0.12 * max(eps))
    axes.set_xticks(ticks, ["0" if one == 0 else format_ratio(one) for one in ticks])
    axes.set_xlabel(f"eps, {evaluation.adversarial.threat.norm.capitalize()}", size=8)
    _style(axes)
    axes.set_title("robust accuracy over eps, %", size=9)


def _apart(values: Sequence[float], distance: float) -> list[float]:
    """Those of the ascending ``values`` that leave their labels room; the last one is always among them."""
    kept = [values[-1]]
    for value in reversed(values[:-1]):
        if kept[-1] - value >= distance:
            kept.append(value)
    return kept[::-1]


def _style(axes: "Axes") -> None:
    axes.tick_params(labelsize=7.5)
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_axisbelow(True)
    axes.grid(axis="both", color="#e4e4e4", linewidth=0.6)


def percent(value: float, digits: int = 0) -> str:
    return f"{100 * value:.{digits}f} %"
