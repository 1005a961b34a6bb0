"""A contact sheet: one image under every kind and severity, for people to look at."""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from temper.evaluation.corruptions.catalogue import corrupt
from temper.evaluation.corruptions.kind import SEVERITIES

MARGIN = 4
CAPTION = 14
CELL = 96
"""Smaller images are enlarged to at least this side, pixel by pixel, so that nothing is smoothed away."""


def write_sheet(path: Path, image: Tensor, kinds: Sequence[str], *, row: int = 0, seed: int = 0) -> None:
    """Write a PNG with a line per kind: the clean uint8 ``image`` (3,H,W), then severities 1 to 5.

    Raises:
        UsageError: no such kind.
        DataError: an image of another shape or type.
    """
    from PIL import Image, ImageDraw

    zoom = max(1, -(-CELL // min(image.shape[-2:])))
    height, width = (side * zoom for side in image.shape[-2:])
    columns = 1 + len(SEVERITIES)
    sheet = Image.new(
        "RGB", (columns * (width + MARGIN) + MARGIN, len(kinds) * (height + CAPTION + MARGIN)), "white"
    )
    pen = ImageDraw.Draw(sheet)
    rows = torch.tensor([row], device=image.device)
    for line, kind in enumerate(kinds):
        top = line * (height + CAPTION + MARGIN)
        pen.text((MARGIN, top + 1), f"{kind}, severity 0 to {SEVERITIES[-1]}", fill="black")
        cells = [image] + [corrupt(kind, severity, image[None], rows, seed)[0] for severity in SEVERITIES]
        for column, cell in enumerate(cells):
            picture = Image.fromarray(cell.permute(1, 2, 0).cpu().numpy())
            picture = picture.resize((width, height), Image.Resampling.NEAREST)
            sheet.paste(picture, (MARGIN + column * (width + MARGIN), top + CAPTION))
    sheet.save(path, format="PNG")
