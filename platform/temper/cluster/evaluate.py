"""Evaluating a run, or a model from elsewhere: in this process, or on the actors of a Ray cluster."""

from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from temper.cluster.evaluation_actors import evaluate_on_actors
from temper.cluster.holding import hold_run
from temper.cluster.runtime import start_ray
from temper.errors import CheckpointError
from temper.evaluation import ChunkStore, evaluate_chunks, prepare
from temper.evaluation.cascade import OnProgress
from temper.evaluation.chunk_outcome import ChunkOutcome
from temper.records import EvaluationRecord, RunFolder, refuse_second
from temper.run.evaluate import evaluate_target
from temper.run.external_model import ExternalModelSpec, ExternalTarget
from temper.run.run_target import RunTarget
from temper.run.target import EvaluationTarget
from temper.storage import fetched
from temper.training import read_state


def evaluate_run(
    path: Path,
    overrides: dict[str, Any] | None = None,
    *,
    out: Path | None = None,
    on_progress: OnProgress | None = None,
) -> EvaluationRecord:
    """Evaluate the best checkpoint of the run folder ``path`` on its test split.

    The record and the outcomes go into ``out``, or beside the checkpoint. An interrupted evaluation
    resumes.

    Raises:
        CheckpointError: no finished run here.
        RecordError: it has a record already.
        ShardError: the images are gone, or not those of the run.
        RecipeError: a suite that is not there, or does not fit.
    """
    _check_finished(RunFolder(fetched(path)))
    return evaluate(lambda: RunTarget.open(path, overrides), out or path, on_progress)


def evaluate_external(
    spec: ExternalModelSpec, out: Path, *, on_progress: OnProgress | None = None
) -> EvaluationRecord:
    """Evaluate the model that ``spec`` names into ``out``: record.json and what it rests on.

    Raises:
        RecipeError: no such function, or a suite that does not fit.
        ModelError: what it returns is no torch module, or does not answer with logits.
        ShardError: images that are missing or damaged.
        RecordError: ``out`` has a record already.
    """
    refuse_second(RunFolder(fetched(out)))
    target = ExternalTarget.open(spec)  # before the folder is taken from whoever may write there
    return evaluate(lambda: target, out, on_progress)


def evaluate(
    open_target: Callable[[], EvaluationTarget], out: Path | None, on_progress: OnProgress | None = None
) -> EvaluationRecord:
    """Evaluate what ``open_target`` opens; the record is written into ``out`` if given.

    Raises:
        TemperError: as ``evaluate_target``, or another process writes there.
    """
    with nullcontext() if out is None else hold_run(out):
        return evaluate_target(open_target, out, attack, on_progress)


def attack(
    target: EvaluationTarget, store: ChunkStore | None, on_progress: OnProgress | None
) -> ChunkOutcome:
    """Classify and attack ``target`` here, or in as many Ray processes as its settings say: the same outcome.

    Raises:
        TemperError: the model does not answer with logits, cannot be opened on a worker, or differs there.
    """
    if target.settings.num_workers > 0:
        start_ray()
        on_chunk = None if on_progress is None else lambda *done: on_progress("chunks", *done)
        return evaluate_on_actors(target, store=store, on_chunk=on_chunk)
    test, plan = target.test, target.plan
    data, kept = prepare(test.images, test.labels, plan)
    return evaluate_chunks(
        target.model,
        data,
        kept,
        test.rows,
        plan,
        target.device,
        store=store,
        source=target.source,
        on_progress=on_progress,
    )


def _check_finished(run: RunFolder) -> None:
    if not run.recipe.exists():
        raise CheckpointError(
            f"{run.path}: no run here (no recipe.yaml); create one with "
            f"`temper train RECIPE --out {run.path}`"
        )
    if not read_state(run.checkpoint).is_settled:
        raise CheckpointError(f"{run.path}: this run is unfinished; run `temper train` again to resume it")
