"""What a tracker does."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol


class Tracker(Protocol):
    """Receives metrics and pictures. It may be slow or broken; the run must not notice."""

    def log(self, metrics: Mapping[str, float], *, epoch: int) -> None:
        """Keep metrics of one epoch; those of its validation may follow alone, after later epochs."""

    def image(self, name: str, path: Path) -> None:
        """Keep a picture."""

    def summary(self, metrics: Mapping[str, float]) -> None:
        """Keep the run's final numbers."""

    def finish(self) -> None:
        """Let go of everything, soon."""


class NullTracker:
    """Keeps nothing, so that the loop never asks whether tracking is on."""

    def log(self, metrics: Mapping[str, float], *, epoch: int) -> None: ...
    def image(self, name: str, path: Path) -> None: ...
    def summary(self, metrics: Mapping[str, float]) -> None: ...
    def finish(self) -> None: ...


class Trackers:
    """Several trackers as one."""

    def __init__(self, trackers: Sequence[Tracker]) -> None:
        self._trackers = trackers

    def log(self, metrics: Mapping[str, float], *, epoch: int) -> None:
        for tracker in self._trackers:
            tracker.log(metrics, epoch=epoch)

    def image(self, name: str, path: Path) -> None:
        for tracker in self._trackers:
            tracker.image(name, path)

    def summary(self, metrics: Mapping[str, float]) -> None:
        for tracker in self._trackers:
            tracker.summary(metrics)

    def finish(self) -> None:
        for tracker in self._trackers:
            tracker.finish()
