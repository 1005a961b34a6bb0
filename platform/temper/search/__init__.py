"""What a sweep varies, which point it tries next, and what it makes of the answers. No Ray here."""

from temper.search.finalists import answer_of, choose_finalists, front_of
from temper.search.optuna_points import Known, OptunaPoints
from temper.search.parameter import Parameter
from temper.search.points import BASELINE, Answer, GivenPoints, Point, Points
from temper.search.space import (
    MUTABLE,
    MedianStopping,
    PopulationTraining,
    SearchSpace,
    load_space,
    refuse_samples_of_a_grid,
)
from temper.search.trials import Trial, baseline_trial, build_trial, build_trials, check_space, group_of

__all__ = [
    "BASELINE",
    "MUTABLE",
    "Answer",
    "GivenPoints",
    "Known",
    "MedianStopping",
    "OptunaPoints",
    "Parameter",
    "Point",
    "Points",
    "PopulationTraining",
    "SearchSpace",
    "Trial",
    "answer_of",
    "baseline_trial",
    "build_trial",
    "build_trials",
    "check_space",
    "choose_finalists",
    "front_of",
    "group_of",
    "load_space",
    "refuse_samples_of_a_grid",
]
