"""A picture of the most confident mistakes on clean images."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from temper.evaluation.figure import WRONG, as_png, percent, place_picture, shorten, write
from temper.records import MistakeRecord

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLUMNS = 4
WIDTH, MARGIN, SIDE, CAPTION = 11.0, 0.2, 1.7, 0.85
STEP = (WIDTH - MARGIN) / COLUMNS


def draw_mistakes(mistakes: Sequence[MistakeRecord], images: np.ndarray) -> bytes:
    """A PNG of ``images`` uint8 (K,3,H,W), each with the file, the true class and the answer."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rows = -(-len(mistakes) // COLUMNS)
    figure = Figure(figsize=(WIDTH, MARGIN + rows * (SIDE + CAPTION)), dpi=110, facecolor="white")
    FigureCanvasAgg(figure)
    for place, (mistake, image) in enumerate(zip(mistakes, images, strict=True)):
        row, column = divmod(place, COLUMNS)
        _draw(figure, MARGIN + column * STEP, MARGIN + row * (SIDE + CAPTION), mistake, image)
    return as_png(figure)


def _draw(figure: "Figure", left: float, top: float, mistake: MistakeRecord, image: np.ndarray) -> None:
    place_picture(figure, left, top, SIDE, image)
    said = shorten(mistake.prediction or "another class", 22)
    name = mistake.path or f"image {mistake.row}"
    below = top + SIDE + 0.06
    write(figure, left, below, f"true: {shorten(mistake.label, 26)}", weight="bold")
    write(figure, left, below + 0.19, f"says: {said}, {percent(mistake.confidence)}", color=WRONG)
    # The end of a path tells files apart.
    end = name if len(name) <= 34 else f"…{name[-33:]}"
    write(figure, left, below + 0.39, shorten(end, 34), size=8, color="#777777")
