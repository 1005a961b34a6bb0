"""One session of a sweep on Ray Tune: trials from the book, rows back into it."""

import os
import shutil
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ray import tune
from ray.tune.search import Searcher

from temper.cluster.resources import Share, max_concurrent
from temper.cluster.sweep.population import mutable_values, read_lineage
from temper.cluster.sweep.schedulers import build_scheduler
from temper.cluster.sweep.sparing import FAILED, RUNG
from temper.cluster.sweep.trial import Shared, run_trial
from temper.cluster.sweep.trial_store import TrialStore, Watch
from temper.recipe import Recipe
from temper.records import LedgerRow
from temper.search import PopulationTraining, Trial
from temper.storage import fetched_state, named, portable

NESTED = {"cpu": 0, "memory": 1}
"""What a trial asks for beside its workers: Tune does not accept zero resources."""

MAX_DEATHS = 2
"""How often a trial resumes after its process has died."""


class Halt(tune.Stopper):  # type: ignore[misc]  # Ray's classes are untyped
    """Ends the session before its trials have ended: time is up, or Ctrl-C was pressed."""

    def __init__(self, deadline: float | None) -> None:
        self._deadline = deadline
        self.is_interrupted = False
        self.is_late = False

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        return False

    def stop_all(self) -> bool:
        self.is_late = self.is_late or (self._deadline is not None and time.monotonic() > self._deadline)
        return self.is_interrupted or self.is_late


def run_session(
    book: TrialStore, first: Recipe, shared: Shared, deadline: float | None, watch: Watch
) -> Halt:
    """Run what the book has left, until it is done or halted; what comes back says which."""
    workers, halt = first.workers, Halt(deadline)
    share, is_nested = Share.of(workers), workers.max_workers > 0
    is_population = isinstance(book.space.scheduler, PopulationTraining)
    own = NESTED if is_nested else {"cpu": share.cpus, "gpu": share.gpus}
    # Tune's own account of a session is never read again: ours is enough.
    state = book.folder.path / ".ray"
    shutil.rmtree(state, ignore_errors=True)
    history = {name: book.history(name) for name in _names(book)}
    trainable = tune.with_parameters(run_trial, folder=named(portable(book.folder.path)), shared=shared)
    tuner = tune.Tuner(
        tune.with_resources(trainable, own),
        param_space=population_of(book) if is_population else None,
        tune_config=tune.TuneConfig(
            search_alg=None if is_population else FromBook(book),
            num_samples=1 if is_population else -1,
            scheduler=build_scheduler(book.space, first.epochs, history),
            reuse_actors=not is_nested,
            max_concurrent_trials=None if is_population else max_concurrent(workers),
            trial_dirname_creator=lambda trial: str(trial.trial_id),
        ),
        run_config=tune.RunConfig(
            name="tune",
            storage_path=str(state.resolve()),
            callbacks=[Rows(book, watch, halt)],
            stop=halt,
            verbose=0,
            failure_config=tune.FailureConfig(max_failures=MAX_DEATHS),
        ),
    )
    _keep_keys_out_of_logs()
    with _interruptible(halt):
        tuner.fit()
    return halt


def _keep_keys_out_of_logs() -> None:
    """Stop Tune from putting the driver's AWS keys into the runtime environment of its trials.

    Ray 2.60 writes runtime environments into ``runtime_env_agent.log`` in plain text. Trials have the keys of
    the node that they run on: its role, or the environment that Ray was started in.
    """
    from ray.tune.execution.class_cache import ENV_VARS_TO_PROPAGATE

    for name in [name for name in ENV_VARS_TO_PROPAGATE if name.startswith("AWS_")]:
        ENV_VARS_TO_PROPAGATE.discard(name)


def _names(book: TrialStore) -> list[str]:
    return [path.name for path in book.folder.trials.iterdir()] if book.folder.trials.exists() else []


@contextmanager
def _interruptible(halt: Halt) -> Iterator[None]:
    """Let the first Ctrl-C end the session in order; a second one interrupts at once."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    os.environ["TUNE_DISABLE_SIGINT_HANDLER"] = "1"

    def interrupt(*_: object) -> None:
        halt.is_interrupted = True
        signal.signal(signal.SIGINT, before)

    before = signal.signal(signal.SIGINT, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def config_of(trial: Trial, book: TrialStore) -> dict[str, Any]:
    """What Tune hands to ``run_trial``."""
    return {"trial": trial.trial, "recipe": trial.recipe.resolved(), "metric": book.space.metric}


def population_of(book: TrialStore) -> dict[str, Any]:
    """All trials at once, which Tune wants of a population; what may change on the way by itself."""
    trials = {trial.trial: trial for trial in iter(book.next, None)}
    recipes = {name: trial.recipe.resolved() for name, trial in trials.items()}
    points = {name: mutable_values(book.space, trial.recipe) for name, trial in trials.items()}
    return {
        "trial": tune.grid_search(list(trials)),
        "metric": book.space.metric,
        "recipe": tune.sample_from(lambda config: recipes[config["trial"]]),
        "own": tune.sample_from(lambda config: recipes[config["trial"]]),
        "point": tune.sample_from(lambda config: points[config["trial"]]),
    }


class FromBook(Searcher):  # type: ignore[misc]
    """Hands Tune one trial of the book after the other."""

    def __init__(self, book: TrialStore) -> None:
        super().__init__(metric=RUNG, mode="max")
        self._book = book

    def suggest(self, trial_id: str) -> Any:
        trial = self._book.next()
        if trial is None:
            return Searcher.FINISHED
        return config_of(trial, self._book)

    def on_trial_complete(self, trial_id: str, result: Any = None, error: bool = False) -> None:
        """The book hears of it from ``Rows``, which knows more."""

    def save(self, checkpoint_path: str) -> None:
        """The book is on the disk already."""

    def restore(self, checkpoint_path: str) -> None:
        """Never asked for."""


class Rows(tune.Callback):  # type: ignore[misc]
    """Writes a row for each trial that ends of itself or is stopped by the scheduler."""

    def __init__(self, book: TrialStore, watch: Watch, halt: Halt) -> None:
        self._book, self._watch, self._halt = book, watch, halt

    def __getstate__(self) -> dict[str, Any]:
        """Nothing: Tune pickles callbacks for a resumption of its own, and a watcher may hold a lock."""
        return {}

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        if FAILED not in result:
            self._watch.on_result(trial.config["trial"], result)

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        result = trial.last_result or {}
        is_ended = FAILED in result or result.get("finished") == 1.0
        if is_ended or not self._halt.stop_all():
            self._write(trial, result)

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self._write(trial, {**(trial.last_result or {}), FAILED: 1.0})

    def _write(self, trial: Any, result: dict[str, Any]) -> None:
        ended = self._book.trial(trial.config["trial"])
        fetched_state(self._book.folder.trial(ended.trial).path)
        numbers = {name: float(v) for name, v in result.items() if isinstance(v, int | float)}
        kept = ("train/", "val/", "best/", "epoch")
        is_stopped = FAILED not in numbers and numbers.get("finished") != 1.0
        row = LedgerRow(
            trial=ended.trial,
            recipe_hash=ended.recipe.hash,
            status="failed" if FAILED in numbers else "stopped" if is_stopped else "finished",
            overrides=ended.overrides,
            metrics={n: v for n, v in numbers.items() if n.startswith(kept) and FAILED not in numbers},
            cost={n.removeprefix("cost/"): v for n, v in numbers.items() if n.startswith("cost/")},
            error=self._error_of(ended.trial) if FAILED in numbers else None,
            reason=self._reason_of(ended.trial, is_stopped, numbers.get("epoch", 0)),
        )
        self._book.ended(row)
        self._watch.on_trial(row, self._book.total)

    def _reason_of(self, name: str, is_stopped: bool, epoch: float) -> str | None:
        scheduler = self._book.space.scheduler
        if is_stopped and scheduler is not None:
            return f"{scheduler.kind} after epoch {epoch:.0f}"
        changes = read_lineage(self._book.folder.trial(name))
        return f"took over from others {len(changes)} times, see lineage.jsonl" if changes else None

    def _error_of(self, name: str) -> str:
        error = self._book.folder.trial(name).error
        if not error.exists():
            return f"its process died {MAX_DEATHS + 1} times"
        return next(iter(error.read_text(encoding="utf-8", errors="replace").splitlines()), "unknown")
