"""The evidence beside a record: outcomes of every image, and adversarial images of some."""

import logging
from collections.abc import Callable, Sequence

from temper.evaluation import Evaluation
from temper.evaluation.adversarial import write_adversarial
from temper.evaluation.examples import choose_examples
from temper.evaluation.figure import MAX_EXAMPLES, draw_figure
from temper.evaluation.mistakes import draw_mistakes
from temper.records import (
    MistakeRecord,
    RunFolder,
    SourcesRecord,
    discard_leftovers,
    write_once,
    write_outcomes,
)
from temper.run.target import EvaluationTarget

logger = logging.getLogger(__name__)


def write_evidence(
    written: RunFolder,
    evaluation: Evaluation,
    target: EvaluationTarget,
    mistakes: Sequence[MistakeRecord],
) -> None:
    """Write it if there is no record yet; the evidence of an interrupted evaluation is replaced.

    ``mistakes`` are drawn where there are any.

    Raises:
        RecordError: there is a record already.
    """
    discard_leftovers(written)
    pictures = {
        written.figure: _drawn("figure", lambda: _draw(evaluation, target)),
        written.mistakes: _drawn("picture of mistakes", lambda: _draw_mistakes(target, mistakes)),
    }
    write_outcomes(written.outcomes, evaluation.outcomes)
    for name, outcomes in evaluation.outcomes_of_tests.items():
        write_outcomes(written.outcomes_of(name), outcomes)
    write_adversarial(written.adversarial, evaluation.adversarial)
    if evaluation.sources:
        sources = SourcesRecord(chunks=evaluation.sources)
        write_once(written.sources, sources.model_dump_json(indent=2) + "\n")
    for path, picture in pictures.items():
        if picture is not None:
            write_once(path, picture)


def _drawn(what: str, draw: Callable[[], bytes | None]) -> bytes | None:
    """What ``draw`` draws; ``None`` if it cannot, so that a picture never costs hours of attacks."""
    try:
        return draw()
    except Exception as problem:
        logger.warning("no %s: %s: %s", what, type(problem).__name__, problem)
        return None


def _draw(evaluation: Evaluation, target: EvaluationTarget) -> bytes:
    examples = choose_examples(
        target.model,
        evaluation.adversarial,
        target.claim.data.classes,
        {label: accs["robust_acc"] for label, accs in evaluation.per_class.items()},
        max_examples=MAX_EXAMPLES,
        device=target.device,
    )
    return draw_figure(evaluation, examples, target.claim.name, target.claim.data.name)


def _draw_mistakes(target: EvaluationTarget, mistakes: Sequence[MistakeRecord]) -> bytes | None:
    if not mistakes:
        return None
    places = {row: place for place, row in enumerate(target.test.rows.tolist())}
    return draw_mistakes(mistakes, target.test.images[[places[one.row] for one in mistakes]])
