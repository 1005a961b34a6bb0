"""An evaluation's chunks on the actors of a Ray cluster."""

from collections.abc import Callable
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from temper.cluster.resources import num_gpus, wants_gpu
from temper.cluster.runtime import own_error, quiet_ray
from temper.errors import ModelError, UsageError
from temper.evaluation import ChunkStore, EvaluationPlan, prepare
from temper.evaluation.cascade import LabelledImages
from temper.evaluation.chunk import evaluate_chunk
from temper.evaluation.chunk_outcome import ChunkOutcome, join
from temper.evaluation.result import main_cascade
from temper.evaluation.store import pack, unpack
from temper.host import use_cpu
from temper.run.target import EvaluationTarget, Opener

MAX_RESTARTS = 3
"""Of an actor whose process dies."""

OnChunk = Callable[[int, int, float], None]
"""Called with the images done, all images, and the robust accuracy so far."""


class ChunkWorker:
    """An actor: the model and the images, opened once, and chunks on demand."""

    def __init__(self, opener: Opener, plan: EvaluationPlan, num_threads: int) -> None:
        quiet_ray()
        use_cpu(num_threads)
        self._opener, self._plan = opener, plan

    @cached_property
    def _opened(self) -> tuple[EvaluationTarget, LabelledImages, Tensor]:
        """Opened by the first task: Ray returns an error in a task as it is, but not one in ``__init__``."""
        target = self._opener()
        _ = target.source  # before it is asked
        return target, *prepare(target.test.images, target.test.labels, self._plan)

    def evaluate(self, index: int) -> bytes:
        """Chunk number ``index``, packed."""
        target, data, kept = self._opened
        part = list(self._plan.chunks(len(data.labels)))[index]
        portion = LabelledImages(data.images[part], data.labels[part])
        rows = torch.from_numpy(target.test.rows[part])
        found = evaluate_chunk(target.model, portion, rows, kept[part], self._plan, index, target.device)
        return pack(found.made_by(target.source))


def evaluate_on_actors(
    target: EvaluationTarget, *, store: ChunkStore | None, on_chunk: OnChunk | None = None
) -> ChunkOutcome:
    """The result of ``evaluate_images``, from as many processes as its settings say, even if some die.

    Chunks that ``store`` has are not repeated.

    Raises:
        TemperError: the model or the images cannot be opened on a worker, its processes keep dying, or the
            model that it opens is another.
    """
    plan, num_images, source = target.plan, len(target.test.labels), target.source
    parts = list(plan.chunks(num_images))
    stored = {index: store.read(index) if store is not None else None for index in range(len(parts))}
    found = {index: one for index, one in stored.items() if one is not None}
    waiting = [index for index in range(len(parts)) if index not in found]

    def keep(index: int, one: ChunkOutcome) -> None:
        if [chunk.model for chunk in one.sources] != [source]:
            raise ModelError(
                "a worker process opened a different model (its code or its weights differ): every node must "
                "see the same file, and its function must return the same weights every time"
            )
        found[index] = one
        if store is not None:
            store.write(index, one)
        if on_chunk is not None:
            done = sum(len(part.clean.labels) for part in found.values())
            standing = sum(int(main_cascade(part, plan).standing.sum()) for part in found.values())
            on_chunk(done, num_images, standing / done)

    if waiting:
        import ray

        # An opener may hold a whole model: once into the object store, not once for each actor; and kept
        # there, for actors that start again.
        shared = ray.put(target.opener)
        actors = _start(shared, target, min(target.settings.num_workers, len(waiting)))
        _work_off(actors, waiting, keep)
    return join([found[index] for index in range(len(parts))])


def _start(shared: Any, target: EvaluationTarget, count: int) -> list[Any]:
    import ray

    if wants_gpu(target.use_gpu) and num_gpus() == 0:
        raise UsageError("use_gpu: the cluster has no GPU; leave it out, or use 'auto'")
    options = {
        "num_cpus": target.num_threads,
        "num_gpus": int(wants_gpu(target.use_gpu)),
        "max_restarts": MAX_RESTARTS,
        "max_task_retries": MAX_RESTARTS,
    }
    worker = ray.remote(ChunkWorker).options(**options)
    return [worker.remote(shared, target.plan, target.num_threads) for _ in range(count)]


def _work_off(actors: list[Any], waiting: list[int], keep: Callable[[int, ChunkOutcome], None]) -> None:
    """Give chunks to free actors, and keep the results."""
    import ray

    queue, running = list(waiting), {}
    try:
        for actor in actors:
            index = queue.pop(0)
            running[actor.evaluate.remote(index)] = (actor, index)
        while running:
            (ready,), _ = ray.wait(list(running))
            actor, index = running.pop(ready)
            keep(index, unpack(ray.get(ready)))
            if queue:
                index = queue.pop(0)
                running[actor.evaluate.remote(index)] = (actor, index)
    except ray.exceptions.RayError as problem:
        raise own_error(problem) from problem
    finally:
        for actor in actors:
            ray.kill(actor)
