"""One trial of a sweep: the same run as ``temper train``, inside a process of Ray Tune's."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ray import tune
from ray.tune.integration.ray_train import TuneReportCallback
from ray.tune.schedulers import ASHAScheduler, FIFOScheduler, TrialScheduler

from temper.cluster.evaluate import evaluate_run
from temper.cluster.feeds import OpenData
from temper.cluster.runtime import hush, start_ray, wants_gpu
from temper.cluster.search_space import SearchSpace
from temper.cluster.workers import run_here, run_on_workers
from temper.recipe import Recipe, load_recipe
from temper.records import EvaluationRecord, LedgerRow, RunFolder, SweepFolder, append_line, write_atomic
from temper.spec import dump_yaml
from temper.training.progress import reported

BASELINE = "baseline"
RUNG = "rung_metric"
WithRung = Callable[[Mapping[str, Any]], dict[str, Any]]
"""Adds the value by which ASHA compares trials."""


@dataclass(frozen=True)
class Planned:
    """One trial to run."""

    trial: str
    overrides: dict[str, Any]
    recipe: Recipe


@dataclass(frozen=True)
class Shared:
    """What all trials of a sweep use: images in the object store, and the start of each."""

    data: OpenData
    decoded: dict[str, Any]
    starts: dict[str, str | None]


def run_trial(config: dict[str, Any], *, folder: str, shared: Shared) -> None:
    """Tune's trainable: train the trial's recipe and report every epoch."""
    hush()
    name = config["trial"]
    recipe = Recipe.model_validate(config["recipes"][name])
    run = SweepFolder(Path(folder)).trial(name)
    write_atomic(run.recipe, dump_yaml(recipe.resolved()))

    def with_rung(metrics: Mapping[str, Any]) -> dict[str, Any]:
        best = metrics.get(f"best/{recipe.selection_metric}", 0.0)
        return {**metrics, RUNG: metrics.get(config["metric"], best)}

    try:
        _run(recipe, run, shared, name, with_rung)
    except Exception as problem:
        # Tune's own account of the error reaches the driver late or not at all.
        write_atomic(run.error, f"{type(problem).__name__}: {problem}\n")
        raise


def _run(recipe: Recipe, run: RunFolder, shared: Shared, name: str, with_rung: WithRung) -> None:
    data, decoded, start = shared.data, shared.decoded, shared.starts[name]
    if recipe.workers.num_workers == 0:

        def report(metrics: Mapping[str, Any]) -> None:
            tune.report(with_rung(metrics))

        run_here(recipe, run, data, decoded, start=start, report=report)
    else:
        state = run_on_workers(recipe, run, data, decoded, start, callbacks=[ReportToTune(with_rung)])
        if recipe.validation.is_asynchronous:
            # What came after the last epoch's report, Ray Train does not tell Tune.
            tune.report(with_rung(reported(state, {}, state.next_epoch - 1)))


class ReportToTune(TuneReportCallback):  # type: ignore[misc]  # Ray's classes are untyped
    """Hands what the workers of a nested trainer report on to Tune."""

    def __init__(self, with_rung: WithRung) -> None:
        super().__init__()
        self._with_rung = with_rung

    def after_report(self, run_context: Any, metrics: list[dict[str, Any]], checkpoint: Any) -> None:
        super().after_report(run_context, [self._with_rung(metrics[0])], checkpoint)


def build_scheduler(space: SearchSpace, epochs: int) -> TrialScheduler:
    """What stops trials early."""
    if space.scheduler is None or space.scheduler.grace_epochs >= epochs:
        return FIFOScheduler()
    return SparingASHA(
        time_attr="epoch",
        metric=RUNG,
        mode="max",
        max_t=epochs,
        grace_period=space.scheduler.grace_epochs,
        reduction_factor=space.scheduler.reduction_factor,
    )


class SparingASHA(ASHAScheduler):  # type: ignore[misc]  # Ray's classes are untyped
    """ASHA among the trials; the baseline neither competes nor is stopped."""

    def on_trial_add(self, tune_controller: Any, trial: Any) -> None:
        if trial.config["trial"] != BASELINE:
            super().on_trial_add(tune_controller, trial)

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        if trial.config["trial"] == BASELINE:
            return str(TrialScheduler.CONTINUE)
        return str(super().on_trial_result(tune_controller, trial, result))

    def on_trial_complete(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> None:
        if trial.config["trial"] != BASELINE:
            super().on_trial_complete(tune_controller, trial, result)


class LedgerCallback(tune.Callback):  # type: ignore[misc]
    """Writes a ledger row for each trial that ends; keeps no state of its own."""

    def __init__(
        self,
        folder: SweepFolder,
        planned: Mapping[str, Planned],
        on_trial: Callable[[LedgerRow, int], None] | None,
    ) -> None:
        self._folder, self._planned, self._on_trial = folder, planned, on_trial

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self._write(trial, None)

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        error = self._folder.trial(trial.config["trial"]).error
        reason = error.read_text(encoding="utf-8").strip() if error.exists() else "its process died"
        self._write(trial, reason)

    def _write(self, trial: Any, error: str | None) -> None:
        planned = self._planned[trial.config["trial"]]
        result = {
            name: value for name, value in (trial.last_result or {}).items() if isinstance(value, int | float)
        }
        kept = ("train/", "val/", "best/", "epoch")
        is_finished = result.get("finished") == 1.0
        row = LedgerRow(
            trial=planned.trial,
            recipe_hash=planned.recipe.hash,
            status="failed" if error else "finished" if is_finished else "stopped",
            overrides=planned.overrides,
            metrics={name: float(value) for name, value in result.items() if name.startswith(kept)},
            cost={
                name.removeprefix("cost/"): float(v) for name, v in result.items() if name.startswith("cost/")
            },
            error=error,
        )
        append_line(self._folder.ledger, row.model_dump(mode="json"))
        if self._on_trial is not None:
            self._on_trial(row, len(self._planned))


def evaluate_all(runs: list[RunFolder], recipe: Recipe) -> None:
    """Evaluate runs side by side on the cluster, each as a task of its own."""
    import ray

    ray.get([_evaluation_task(recipe).remote(run.path.resolve()) for run in runs])


def evaluate_on_cluster(
    run: Path, overrides: dict[str, Any] | None = None, out: Path | None = None, *, verbose: bool = False
) -> EvaluationRecord:
    """Evaluate one run where the cluster has what its recipe asks for, not on the node that asks."""
    import ray

    start_ray(verbose=verbose)
    recipe = load_recipe(RunFolder(run).recipe, overrides)
    record: EvaluationRecord = ray.get(_evaluation_task(recipe).remote(run.resolve(), overrides, out=out))
    return record


def _evaluation_task(recipe: Recipe) -> Any:
    import ray

    resources = {
        "num_cpus": recipe.workers.cpus_per_worker,
        "num_gpus": int(wants_gpu(recipe.workers.use_gpu)),
    }
    return ray.remote(evaluate_run).options(**resources)
