"""Early stopping: Ray Tune's schedulers, sparing the baseline and knowing results of earlier sessions."""

from collections.abc import Mapping, Sequence
from typing import Any

from ray.tune.schedulers import ASHAScheduler, FIFOScheduler, MedianStoppingRule, TrialScheduler

from temper.cluster.sweep.population import Population
from temper.cluster.sweep.sparing import RUNG, Sparing
from temper.search import BASELINE, MedianStopping, PopulationTraining, SearchSpace
from temper.seeds import derive_seed

History = Mapping[str, Sequence[tuple[int, float]]]
"""Of each trial, the epochs from 1 with the metric after them."""


def build_scheduler(space: SearchSpace, epochs: int, history: History) -> TrialScheduler:
    """The scheduler that ``space`` asks for, with the results of trials of earlier sessions."""
    chosen = space.scheduler
    if isinstance(chosen, PopulationTraining):
        return Population(space, chosen, RUNG)
    if chosen is None or chosen.grace_epochs >= epochs:
        return FIFOScheduler()
    if isinstance(chosen, MedianStopping):
        return SparingMedian(
            time_attr="epoch",
            metric=RUNG,
            mode="max",
            grace_period=chosen.grace_epochs,
            min_samples_required=chosen.min_trials,
        )
    return SparingAsha(
        history,
        space.seed,
        time_attr="epoch",
        metric=RUNG,
        mode="max",
        max_t=epochs,
        grace_period=chosen.grace_epochs,
        reduction_factor=chosen.reduction_factor,
        brackets=chosen.brackets,
    )


class SparingMedian(Sparing, MedianStoppingRule):  # type: ignore[misc]  # Ray's classes are untyped
    """The median stopping rule among the trials."""


class SparingAsha(Sparing, ASHAScheduler):  # type: ignore[misc]
    """ASHA among the trials; their results of earlier sessions count as if they were new."""

    def __init__(self, history: History, seed: int, **settings: Any) -> None:
        super().__init__(**settings)
        self._history, self._seed = history, seed
        for name, reached in history.items():
            if name != BASELINE:
                self._recall(self._bracket_of(name), name, reached)

    def on_trial_add(self, tune_controller: Any, trial: Any) -> None:
        name = trial.config["trial"]
        if name == BASELINE:
            return
        # Ray draws the bracket from NumPy's own generator: with another seed another sweep.
        self._trial_info[trial.trial_id] = self._bracket_of(name)

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        reached = self._history.get(trial.config["trial"])
        if reached and trial.config["trial"] != BASELINE:
            # Rungs that the trial passed in an earlier session are recorded under its name, not its new id.
            for milestone, recorded in self._trial_info[trial.trial_id]._rungs:
                if milestone <= reached[-1][0] and trial.config["trial"] in recorded:
                    recorded[trial.trial_id] = recorded.pop(trial.config["trial"])
        return super().on_trial_result(tune_controller, trial, result)

    def _bracket_of(self, name: str) -> Any:
        weights = [2.718281828**-index for index in range(len(self._brackets))]
        drawn = derive_seed(self._seed, "bracket", name) / 2**31 * sum(weights)
        for bracket, weight in zip(self._brackets, weights, strict=True):
            drawn -= weight
            if drawn <= 0:
                return bracket
        return self._brackets[-1]

    def _recall(self, bracket: Any, name: str, reached: Sequence[tuple[int, float]]) -> None:
        """Record what the trial had at each rung: its value in the first epoch that reached it."""
        for milestone, recorded in bracket._rungs:
            value = next((value for epoch, value in reached if epoch >= milestone), None)
            if value is not None:
                recorded[name] = value
