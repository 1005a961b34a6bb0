"""Many trials of one recipe on Ray Tune: driven from a ledger of our own, so that anything can be resumed."""

from temper.cluster.sweep.driver import resume, sweep
from temper.cluster.sweep.trial_store import Watch

__all__ = ["Watch", "resume", "sweep"]
