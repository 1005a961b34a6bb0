"""The evidence beside a record: outcomes of every image, and adversarial images of some."""

import logging

from temper.evaluation import Evaluation, write_outcomes
from temper.evaluation.adversarial import write_adversarial
from temper.evaluation.examples import choose_examples
from temper.evaluation.figure import MAX_EXAMPLES, draw_figure
from temper.records import RunFolder, SourcesRecord, discard_leftovers, write_once
from temper.run.target import EvaluationTarget

logger = logging.getLogger(__name__)


def write_evidence(written: RunFolder, evaluation: Evaluation, target: EvaluationTarget) -> None:
    """Write it if there is no record yet; the evidence of an interrupted evaluation is replaced.

    Raises:
        RecordError: there is a record already.
    """
    discard_leftovers(written)
    picture = _draw(evaluation, target)
    write_outcomes(written.outcomes, evaluation.outcomes)
    write_adversarial(written.adversarial, evaluation.adversarial)
    if evaluation.sources:
        sources = SourcesRecord(chunks=evaluation.sources)
        write_once(written.sources, sources.model_dump_json(indent=2) + "\n")
    if picture is not None:
        write_once(written.figure, picture)


def _draw(evaluation: Evaluation, target: EvaluationTarget) -> bytes | None:
    """The figure; ``None`` if it cannot be drawn, so that a picture never costs hours of attacks."""
    try:
        examples = choose_examples(
            target.model,
            evaluation.adversarial,
            target.claim.data.classes,
            {label: accs["robust_acc"] for label, accs in evaluation.per_class.items()},
            max_examples=MAX_EXAMPLES,
            device=target.device,
        )
        return draw_figure(evaluation, examples, target.claim.name, target.claim.data.name)
    except Exception as problem:
        logger.warning("no figure: %s: %s", type(problem).__name__, problem)
        return None
