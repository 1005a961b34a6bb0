"""One trial of a sweep: the same run as ``temper train``, inside a process of Ray Tune's."""

import traceback
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from ray import tune
from ray.tune.integration.ray_train import TuneReportCallback

from temper.cluster.runtime import quiet_ray
from temper.cluster.sweep.population import hand_on, take_over
from temper.cluster.sweep.sparing import FAILED, RUNG
from temper.cluster.workers import run_here, run_on_workers
from temper.credentials import mask
from temper.errors import StorageError, TemperError
from temper.recipe import Recipe, pretrain_recipe, probe_recipe
from temper.records import RunFolder, SweepFolder, write_atomic
from temper.run.open_data import OpenData
from temper.spec import dump_yaml
from temper.storage import local_path, mirrored, publish
from temper.training import Origin, TrainState
from temper.training.progress import reported

WithRung = Callable[[Mapping[str, Any]], dict[str, Any]]


@dataclass(frozen=True)
class Shared:
    """What all trials of a sweep use: images in the object store, and starts by ``origin_key``."""

    data: OpenData
    decoded: dict[str, Any]
    origins: Mapping[str, Origin]

    def origin_of(self, recipe: Recipe, run: RunFolder) -> Origin:
        """The start of ``recipe``; one that was not known in advance is trained here, for this trial."""
        from temper.cluster.launch import start_probe, start_weights

        known = self.origins.get(origin_key(recipe))
        if known is not None:
            return known
        start = start_weights(recipe, run.pretrain)
        return start_probe(recipe, run.probe, self.data, self.decoded, start)


def origin_key(recipe: Recipe) -> str:
    """The same for recipes with the same start and, where they have one, the same probe on it."""
    has_probe = recipe.has_start and not recipe.is_probe
    return f"{start_key(recipe)} {probe_recipe(recipe).hash if has_probe else ''}"


def start_key(recipe: Recipe) -> str:
    """The same for recipes that start from the same weights."""
    if recipe.pretrain is not None:
        return pretrain_recipe(recipe).hash
    return f"weights {recipe.model.weights}"


def run_trial(config: dict[str, Any], *, folder: str, shared: Shared) -> None:
    """Tune's trainable: train the trial's recipe and report every epoch.

    The trial's own error is reported, not raised: Tune would retry it, and it would come back. The process
    stays for the next trial, unless its GPU may be in a bad state.
    """
    quiet_ray()
    path = SweepFolder(Path(folder)).trial(config["trial"]).path
    # Workers of its own write the run folder themselves, perhaps elsewhere.
    is_nested = config["recipe"]["workers"]["num_workers"] > 0
    with nullcontext() if is_nested else mirrored(path):
        _report_trial(config, path, shared)


def _report_trial(config: dict[str, Any], path: Path, shared: Shared) -> None:
    run, is_population = RunFolder(local_path(path)), "point" in config
    with mirrored(path):
        run.error.unlink(missing_ok=True)
        recipe = take_over(config, run) if is_population else Recipe.model_validate(config["recipe"])

    def with_rung(metrics: Mapping[str, Any]) -> dict[str, Any]:
        best = metrics.get(f"best/{recipe.selection_metric}", 0.0)
        return {**metrics, RUNG: metrics.get(config["metric"], best)}

    try:
        with mirrored(path):
            write_atomic(run.recipe, dump_yaml(recipe.resolved()))
        _run(recipe, run, shared, with_rung, is_population)
    except Exception as problem:
        details = "" if isinstance(problem, TemperError) else traceback.format_exc()
        _keep_error(path, mask(f"{type(problem).__name__}: {problem}\n{details}"))
        tune.report({FAILED: 1.0, RUNG: 0.0, "epoch": 0.0})
        if torch.cuda.is_initialized() and not isinstance(problem, TemperError):  # type: ignore[no-untyped-call]
            raise


def _keep_error(path: Path, text: str) -> None:
    try:
        with mirrored(path) as folder:
            write_atomic(RunFolder(folder).error, text)
            publish(folder)
    except StorageError:
        # Perhaps the very error that should be kept: it is on this machine, at least.
        write_atomic(RunFolder(local_path(path)).error, text)


def _run(recipe: Recipe, run: RunFolder, shared: Shared, with_rung: WithRung, is_population: bool) -> None:
    data, decoded, origin = shared.data, shared.decoded, shared.origin_of(recipe, run)
    if recipe.workers.max_workers > 0:
        state = run_on_workers(recipe, run, data, decoded, origin, callbacks=[ReportToTune(with_rung)])
        # What came after the last epoch's report, or came to an end before, Ray Train does not tell Tune.
        tune.report(with_rung(_last_report(state)))
        return
    num_reports = 0

    def report(metrics: Mapping[str, Any]) -> None:
        nonlocal num_reports
        num_reports += 1
        if metrics.get("finished") == 1.0:
            publish(run.path)  # who hears of it may evaluate it elsewhere
        if is_population:
            hand_on(run, with_rung(metrics))
        else:
            tune.report(with_rung(metrics))

    state = run_here(recipe, run, data, decoded, origin=origin, report=report)
    if num_reports == 0:  # it had ended already, unseen
        tune.report(with_rung(_last_report(state)))


def _last_report(state: TrainState) -> dict[str, Any]:
    return reported(state, {}, state.next_epoch - 1)


class ReportToTune(TuneReportCallback):  # type: ignore[misc]  # Ray's classes are untyped
    """Hands what the workers of a nested trainer report on to Tune."""

    def __init__(self, with_rung: WithRung) -> None:
        super().__init__()
        self._with_rung = with_rung

    def after_report(self, run_context: Any, metrics: list[dict[str, Any]], checkpoint: Any) -> None:
        super().after_report(run_context, [self._with_rung(metrics[0])], checkpoint)
