"""The leaderboard: a pure function of records. It imports neither torch nor ray.

The package can be called: ``temper.leaderboard(...)`` is ``temper.leaderboard.leaderboard(...)``. A function
of that name beside the package would be lost as soon as any part of the package is imported.
"""

import sys
from types import ModuleType
from typing import Any

from temper.leaderboard.boards import Board
from temper.leaderboard.build import build_leaderboard
from temper.leaderboard.entries import Entry
from temper.leaderboard.publish import PublishedBoard, leaderboard
from temper.leaderboard.summary import LeaderboardSummary

__all__ = ["Board", "Entry", "LeaderboardSummary", "PublishedBoard", "build_leaderboard", "leaderboard"]


class _Callable(ModuleType):
    def __call__(self, *arguments: Any, **settings: Any) -> PublishedBoard:
        return leaderboard(*arguments, **settings)


sys.modules[__name__].__class__ = _Callable
