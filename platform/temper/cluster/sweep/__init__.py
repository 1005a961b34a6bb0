"""Many trials of one recipe on Ray Tune: driven from a ledger of our own, so that anything can be resumed."""

from temper.cluster.sweep.book import Watch
from temper.cluster.sweep.driver import resume, sweep

__all__ = ["Watch", "resume", "sweep"]
