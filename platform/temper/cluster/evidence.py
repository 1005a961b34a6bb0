"""What an evaluation leaves beside its record: outcomes of every image, and adversarial images of some."""

from temper.evaluation import Evaluation, write_outcomes
from temper.evaluation.adversarial import write_adversarial
from temper.records import RunFolder


def write_evidence(written: RunFolder, evaluation: Evaluation) -> None:
    """Write it where none is yet.

    Raises:
        RecordError: it exists already.
    """
    write_outcomes(written.outcomes, evaluation.outcomes)
    write_adversarial(written.adversarial, evaluation.adversarial)
