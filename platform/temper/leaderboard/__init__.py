"""The leaderboard: a pure function of records. It imports neither torch nor ray."""

from temper.leaderboard.build import LeaderboardSummary, build_leaderboard
from temper.leaderboard.rank import Board, Entry

__all__ = ["Board", "Entry", "LeaderboardSummary", "build_leaderboard"]
