"""Measuring an opened model: in this process, or on the actors of a Ray cluster, with the same outcome."""

from collections.abc import Sequence
from typing import Any

from temper.cluster.evaluation_actors import evaluate_on_actors
from temper.cluster.runtime import start_ray
from temper.evaluation import (
    ChunkStore,
    Evaluation,
    EvaluationPlan,
    conclude,
    drop_outdated,
    evaluate_images,
    prepare,
)
from temper.evaluation.cascade import OnProgress
from temper.evaluation.evaluate import Relatives
from temper.evaluation.fresh import Fresh, copies_of
from temper.runs.target import Opened, Opener

EVALUATION = "evaluation"
"""Folder of finished chunks, beside the record that they become."""


def measure(
    opened: Opened,
    opener: Opener,
    plan: EvaluationPlan,
    *,
    classes: Sequence[str],
    store: ChunkStore | None,
    relatives: Relatives | None = None,
    fresh: Fresh | None = None,
    num_workers: int = 0,
    num_threads: int = 1,
    use_gpu: Any = "auto",
    on_progress: OnProgress | None = None,
) -> Evaluation:
    """Evaluate ``opened`` as ``plan`` says; ``opener`` opens the same for ``num_workers`` processes of Ray.

    ``fresh`` makes models that were never asked; copies of the opened one are, where nothing is given.

    Raises:
        TemperError: the model does not answer with logits, cannot be opened on a worker, or is another there.
    """
    test = opened.test
    fresh = fresh or copies_of(opened.model)
    data, _ = prepare(test.images, test.labels, plan)
    if store is not None:
        drop_outdated(store, opened.model, data, plan, opened.device, opened.source)
    if num_workers == 0:
        return evaluate_images(
            opened.model,
            test.images,
            test.labels,
            test.rows,
            classes=classes,
            plan=plan,
            device=opened.device,
            store=store,
            relatives=relatives,
            fresh=fresh,
            source=opened.source,
            on_progress=on_progress,
        )
    start_ray()
    found = evaluate_on_actors(
        opener,
        plan,
        len(test.labels),
        opened.source,
        num_workers=num_workers,
        num_threads=num_threads,
        use_gpu=use_gpu,
        store=store,
        on_chunk=None if on_progress is None else lambda *done: on_progress("chunks", *done),
    )
    return conclude(
        opened.model,
        data,
        test.rows,
        found,
        classes=classes,
        plan=plan,
        device=opened.device,
        relatives=relatives,
        fresh=fresh,
    )
