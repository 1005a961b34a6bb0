"""The leaderboard: a pure function of records. It imports neither torch nor ray."""

from temper.leaderboard.boards import Board
from temper.leaderboard.build import build_leaderboard
from temper.leaderboard.entries import Entry
from temper.leaderboard.summary import LeaderboardSummary

__all__ = ["Board", "Entry", "LeaderboardSummary", "build_leaderboard"]
