"""Many trials of one recipe on Ray Tune, driven by our own ledger, so that any sweep can be resumed."""

from temper.cluster.sweep.driver import resume, sweep
from temper.cluster.sweep.trial_store import Watch

__all__ = ["Watch", "resume", "sweep"]
