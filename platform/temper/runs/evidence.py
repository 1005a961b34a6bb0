"""What an evaluation leaves beside its record: outcomes of every image, and adversarial images of some."""

import logging
from collections.abc import Sequence

from temper.evaluation import Evaluation, write_outcomes
from temper.evaluation.adversarial import write_adversarial
from temper.evaluation.examples import choose_examples
from temper.evaluation.figure import MAX_EXAMPLES, draw_figure
from temper.recipe import Recipe
from temper.records import RunFolder, SourcesRecord, discard_leftovers, write_once
from temper.runs.target import Opened
from temper.tracking import build_evaluation_tracker

logger = logging.getLogger(__name__)


def write_evidence(
    written: RunFolder,
    evaluation: Evaluation,
    opened: Opened,
    *,
    name: str,
    data_name: str,
    classes: Sequence[str],
) -> None:
    """Write it where no record is yet; what an evaluation left that was cut short here is replaced.

    Raises:
        RecordError: there is a record already.
    """
    discard_leftovers(written)
    picture = _draw(evaluation, opened, name, data_name, classes)
    write_outcomes(written.outcomes, evaluation.outcomes)
    write_adversarial(written.adversarial, evaluation.adversarial)
    if evaluation.sources:
        sources = SourcesRecord(chunks=evaluation.sources)
        write_once(written.sources, sources.model_dump_json(indent=2) + "\n")
    if picture is not None:
        write_once(written.figure, picture)


def _draw(
    evaluation: Evaluation, opened: Opened, name: str, data_name: str, classes: Sequence[str]
) -> bytes | None:
    """The figure; ``None`` where it cannot be drawn, because no hours of attacks are lost for a picture."""
    try:
        examples = choose_examples(
            opened.model,
            evaluation.adversarial,
            classes,
            {label: accs["robust_acc"] for label, accs in evaluation.per_class.items()},
            max_examples=MAX_EXAMPLES,
            device=opened.device,
        )
        return draw_figure(evaluation, examples, name, data_name)
    except Exception as problem:
        logger.warning("no figure: %s: %s", type(problem).__name__, problem)
        return None


def track_evaluation(written: RunFolder, evaluation: Evaluation, recipe: Recipe) -> None:
    """Show the numbers and the figure wherever the recipe is tracked; that may fail, and harms nothing."""
    tracker = build_evaluation_tracker(recipe.tracking, written, name=recipe.name, config=recipe.resolved())
    if written.figure.exists():
        tracker.image("test/target/adversarial", written.figure)
    tracker.summary(
        {
            "test/target/clean_acc": evaluation.clean_acc.value,
            "test/target/robust_acc": evaluation.robust_acc.value,
        }
    )
    tracker.finish()
