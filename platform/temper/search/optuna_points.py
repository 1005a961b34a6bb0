"""Points that learn from the answers, by Optuna."""

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

from temper.errors import SearchSpaceError
from temper.search.parameter import Parameter, in_order
from temper.search.points import MAX_REDRAWS, Answer, Point
from temper.search.space import SearchSpace
from temper.search.trials import broken_rule, build_trial
from temper.seeds import derive_seed

Known = tuple[Point, Answer | None]
"""A point that was proposed before, and its answer if there is one yet."""


class OptunaPoints:
    """TPE or NSGA-II; stopped trials teach TPE how good they were when they were stopped.

    ``known`` are the points of an earlier session: nothing but them is needed to go on.

    Raises:
        SearchSpaceError: no allowed and new point is found.
    """

    def __init__(
        self, space: SearchSpace, document: Mapping[str, Any], where: str, known: Sequence[Known] = ()
    ) -> None:
        import optuna

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self._space, self._document, self._where = space, document, where
        self._asked: list[tuple[Point, Any]] = []
        """Every point with Optuna's trial of it; ``None`` for those of an earlier session."""
        self._seen: set[str] = set()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what Optuna calls experimental
            self._study = optuna.create_study(
                directions=["maximize"] * len(space.all_objectives), sampler=self._sampler(len(known))
            )
        for number, (point, answer) in enumerate(known):
            self._remember(point, None, number)
            if answer is not None:
                self.tell(number, answer)

    def _sampler(self, num_known: int) -> Any:
        import optuna

        seed = derive_seed(self._space.seed, "sampler", num_known)
        if self._space.search == "nsga2":
            return optuna.samplers.NSGAIISampler(
                population_size=max(4, min(50, self._space.samples // 4)), seed=seed
            )
        return optuna.samplers.TPESampler(
            n_startup_trials=max(4, min(10, self._space.samples // 3)),
            multivariate=True,
            group=True,
            constant_liar=True,
            seed=seed,
        )

    def _remember(self, point: Point, asked: Any, number: int) -> None:
        self._asked.append((point, asked))
        self._seen.add(build_trial(self._document, point, number, self._where).recipe.hash)

    def propose(self) -> Point | None:
        import optuna

        number, reason = len(self._asked), ""
        if number >= self._space.samples:
            return None
        for _ in range(MAX_REDRAWS):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                asked = self._study.ask()
                point = self._suggest(asked)
            try:
                recipe = build_trial(self._document, point, number, self._where).recipe
            except SearchSpaceError as problem:
                reason = str(problem)
            else:
                reason = broken_rule(self._space, recipe) or ""
                if not reason and recipe.hash not in self._seen:
                    self._remember(point, asked, number)
                    return point
            self._study.tell(asked, state=optuna.trial.TrialState.FAIL)
        if reason:
            raise SearchSpaceError(f"{self._where}: {MAX_REDRAWS} points in a row are not allowed: {reason}")
        return None  # whatever it proposes was tried already

    def _suggest(self, asked: Any) -> Point:
        point: Point = {}
        for name in in_order(self._space.parameters):
            parameter = self._space.parameters[name]
            if parameter.applies(point):
                drawn = asked._suggest(name, distribution(parameter))
                point[name] = _as_written(parameter, drawn)
        return {name: point[name] for name in self._space.parameters if name in point}

    def tell(self, number: int, answer: Answer) -> None:
        import optuna

        point, asked = self._asked[number]
        state, values = self._state_of(answer)
        if asked is None:
            asked = optuna.trial.create_trial(
                state=state,
                values=values,
                params={name: self._encoded(name, value) for name, value in point.items()},
                distributions={name: distribution(self._space.parameters[name]) for name in point},
                intermediate_values=dict(answer.history) if state.name == "PRUNED" else {},
            )
            self._study.add_trial(asked)
            return
        if state.name == "PRUNED":
            for epoch, value in answer.history:
                asked.report(value, epoch)
        self._study.tell(asked, values, state)

    def _state_of(self, answer: Answer) -> tuple[Any, list[float] | None]:
        from optuna.trial import TrialState

        if answer.status == "failed" or answer.values is None:
            return TrialState.FAIL, None
        if answer.status == "stopped" and len(answer.values) == 1 and answer.history:
            return TrialState.PRUNED, None
        return TrialState.COMPLETE, list(answer.values)

    def _encoded(self, name: str, value: Any) -> Any:
        listed = self._space.parameters[name].listed
        return value if listed is None else listed.index(value)


def _as_written(parameter: Parameter, drawn: Any) -> Any:
    """The value that Optuna means; 0.15 where it says 0.15000000000000002."""
    if parameter.listed is not None:
        return parameter.listed[drawn]
    return float(f"{drawn:.12g}") if parameter.step is not None and isinstance(drawn, float) else drawn


def distribution(parameter: Parameter) -> Any:
    """Optuna's name for the values; listed ones go by their place, for they may be whole blocks."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if parameter.listed is not None:
        return CategoricalDistribution(range(len(parameter.listed)))
    if parameter.integers is not None:
        return IntDistribution(*parameter.integers, step=int(parameter.step or 1))
    if parameter.loguniform is not None:
        return FloatDistribution(*parameter.loguniform, log=True)
    assert parameter.uniform is not None
    return FloatDistribution(*parameter.uniform, step=parameter.step)
