"""What all schedulers of a sweep share: the value by which trials are compared, and sparing the baseline."""

from typing import Any

from ray.tune.schedulers import TrialScheduler

from temper.search import BASELINE

RUNG = "rung_metric"
"""The value by which trials are compared, in every report."""
FAILED = "failed"
"""In the last report of a trial that cannot continue; the reason is in its ``error.txt``."""


class Sparing:
    """Keeps the baseline, which neither competes nor is stopped, away from a scheduler."""

    def on_trial_add(self, tune_controller: Any, trial: Any) -> None:
        if trial.config["trial"] != BASELINE:
            super().on_trial_add(tune_controller, trial)  # type: ignore[misc]

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        if trial.config["trial"] == BASELINE or FAILED in result:
            return str(TrialScheduler.CONTINUE)
        return str(super().on_trial_result(tune_controller, trial, result))  # type: ignore[misc]

    def on_trial_complete(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> None:
        if trial.config["trial"] != BASELINE:
            super().on_trial_complete(tune_controller, trial, result)  # type: ignore[misc]

    def on_trial_error(self, tune_controller: Any, trial: Any) -> None:
        if trial.config["trial"] != BASELINE:
            super().on_trial_error(tune_controller, trial)  # type: ignore[misc]

    def on_trial_remove(self, tune_controller: Any, trial: Any) -> None:
        if trial.config["trial"] != BASELINE:
            super().on_trial_remove(tune_controller, trial)  # type: ignore[misc]
