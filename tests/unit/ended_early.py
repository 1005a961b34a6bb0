"""Ending an evaluation where a kill would."""

from collections.abc import Callable
from typing import Any


class Killed(BaseException):
    """Nobody may catch it on the way."""


def ends_after(kill_after: float) -> Callable[..., None]:
    """For ``on_progress``: ends the evaluation after so many reports."""
    reports = 0

    def on_progress(*_: Any) -> None:
        nonlocal reports
        reports += 1
        if reports > kill_after:
            raise Killed

    return on_progress
