"""TensorBoard event files beside ``metrics.jsonl``."""

import logging
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

logger = logging.getLogger(__name__)


class TensorBoardTracker:
    """Writes event files into ``folder``. The first failure is a warning and ends it, never the run.

    Epochs count from 1, as in every line that people see. A resumed run writes a further file, which replaces
    the epochs from ``start_epoch`` on.
    """

    def __init__(self, folder: Path, start_epoch: int = 0) -> None:
        self._writer: Any = None
        self._attempt(lambda: self._open(folder, start_epoch))

    def _open(self, folder: Path, start_epoch: int) -> None:
        from tensorboardX import SummaryWriter

        number = len(list(folder.iterdir())) if folder.exists() else 0
        self._writer = SummaryWriter(
            str(folder),
            purge_step=start_epoch + 1,
            write_to_disk=True,
            filename_suffix=f".{number}",  # names tell seconds apart, no more
        )

    def log(self, metrics: Mapping[str, float], *, epoch: int) -> None:
        self._attempt(lambda: self._log(metrics, epoch))

    def _log(self, metrics: Mapping[str, float], epoch: int) -> None:
        for name, value in metrics.items():
            if math.isfinite(value):
                self._writer.add_scalar(name, value, epoch + 1)

    def image(self, name: str, path: Path) -> None:
        self._attempt(lambda: self._image(name, path))

    def _image(self, name: str, path: Path) -> None:
        import numpy as np
        from PIL import Image

        with Image.open(path) as picture:
            self._writer.add_image(name, np.asarray(picture.convert("RGB")), dataformats="HWC")

    def summary(self, metrics: Mapping[str, float]) -> None:
        """Event files have no place for final numbers: they are in the record."""

    def finish(self) -> None:
        self._attempt(lambda: self._writer.close())
        self._writer = None

    def _attempt(self, action: Callable[[], Any]) -> None:
        try:
            action()
        except Exception as problem:  # tracking must never end a run, whatever is raised
            if self._writer is not None:
                logger.warning("TensorBoard files stopped: %s", problem)
            self._writer = None
