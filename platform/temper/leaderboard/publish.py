"""The boards from code, with the place of their page."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from temper.leaderboard.build import build_leaderboard
from temper.leaderboard.summary import LeaderboardSummary


@dataclass(frozen=True)
class PublishedBoard:
    """What `temper leaderboard` wrote."""

    path: Path
    """Its folder."""
    summary: LeaderboardSummary
    """Its boards, best model first, and the records that are on none."""

    @property
    def page(self) -> Path:
        return self.path / "index.html"


def leaderboard(
    results: str | Path | Sequence[str | Path],
    out: str | Path = "leaderboard",
    *,
    compare: str | Path | None = None,
    require_verified: bool = False,
) -> PublishedBoard:
    """Rank evaluated models on pages in ``out``, from their records alone.

    ``results`` are run folders, sweep folders or record files; also ``s3://``. ``compare`` is an older
    leaderboard.json, from which what rose and fell is told; ``require_verified`` ranks only what
    ``temper submit-entry`` let in.

    Raises:
        UsageError: a path that does not exist.
        RecordError: no record at all, or a ``compare`` that is no leaderboard.
    """
    paths = [results] if isinstance(results, str | Path) else results
    old = None if compare is None else Path(compare)
    summary = build_leaderboard(
        [Path(path) for path in paths], Path(out), old=old, require_verified=require_verified
    )
    return PublishedBoard(Path(out), summary)
