"""Pictures of charts and pages, for the documentation."""

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from PIL import Image

from temper.charts import Chart
from temper.leaderboard.pdf import BROWSERS

WINDOW = (1100, 900)
"""Of the browser that takes a page's picture."""


def draw(chart: Chart, out: Path) -> None:
    """A PNG on white, so that it can be read on any page."""
    import vl_convert

    whole = {**chart.complete(is_fluid=False), "background": "white"}
    out.write_bytes(vl_convert.vegalite_to_png(whole, scale=1.5))


def photograph(page: Path, out: Path) -> None:
    """The upper part of a page, by a browser, in at most 256 colours: a small file."""
    browser = next((found for name in BROWSERS if (found := shutil.which(name))), None)
    if browser is None:
        print(f"no browser on the PATH: {out} is left as it is")
        return
    with tempfile.TemporaryDirectory() as folder:
        picture = Path(folder, "page.png")
        command = [
            browser, "--headless", "--hide-scrollbars", "--disable-gpu", f"--user-data-dir={folder}/profile",
            *(["--no-sandbox"] if os.geteuid() == 0 else []), "--virtual-time-budget=3000",
            "--window-size={},{}".format(*WINDOW), f"--screenshot={picture}", page.resolve().as_uri(),
        ]  # fmt: skip
        subprocess.run(command, check=True, capture_output=True, timeout=180)
        with Image.open(picture) as image:
            image.convert("RGB").quantize(256, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE).save(
                out, optimize=True
            )
