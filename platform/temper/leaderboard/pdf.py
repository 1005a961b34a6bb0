"""The page on paper: a browser prints it into a PDF."""

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from temper.errors import TemperError

BROWSERS = (
    "chromium",
    "chromium-browser",
    "google-chrome",
    "google-chrome-stable",
    "chrome",
    "microsoft-edge",
)
TIMEOUT_S = 180


def print_pdf(page: Path, out: Path) -> None:
    """Print the file ``page`` into ``out``, without a network.

    Raises:
        TemperError: no browser on the PATH, or one that could not print.
    """
    browser = next((found for name in BROWSERS if (found := shutil.which(name))), None)
    if browser is None:
        raise TemperError(
            f"no browser on the PATH to print the PDF with (looked for {', '.join(BROWSERS)}); "
            f"install Chromium, or open {page} and print it"
        )
    out.unlink(missing_ok=True)
    with tempfile.TemporaryDirectory() as profile:
        command = [
            browser, "--headless", "--disable-gpu", "--no-first-run", "--disable-extensions",
            "--disable-background-networking", "--disable-component-update", "--disable-sync",
            "--disable-quic", "--host-resolver-rules=MAP * ~NOTFOUND", f"--user-data-dir={profile}",
            *(["--no-sandbox"] if hasattr(os, "geteuid") and os.geteuid() == 0 else []),
            "--no-pdf-header-footer", "--virtual-time-budget=10000",
            f"--print-to-pdf={out.resolve()}", page.resolve().as_uri(),
        ]  # fmt: skip
        try:
            ended = subprocess.run(command, capture_output=True, text=True, check=False, timeout=TIMEOUT_S)
        except subprocess.TimeoutExpired:
            raise TemperError(f"{browser} did not print {page} within {TIMEOUT_S} s") from None
    if not out.is_file():
        last = (ended.stderr.strip().splitlines() or ["it said nothing"])[-1]
        raise TemperError(f"{browser} could not print {page}: {last}")
