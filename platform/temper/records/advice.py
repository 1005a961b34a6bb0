"""What an evaluation says of a bad result, beside the numbers: what is seen, why, and what to change."""

from typing import Literal

from pydantic import Field

from temper.spec import Spec

AdviceKind = Literal[
    "blocked",
    "worse_than_majority",
    "worse_than_probe",
    "validation_above_test",
    "loss_still_falling",
    "class_never_right",
    "few_images",
    "not_robust",
    "eps_too_large",
    "hardened_near_plain",
    "clean_lost",
]


class AdviceRecord(Spec):
    """One thing that is bad. The criteria of each kind stand in docs/evaluation.md."""

    kind: AdviceKind
    text: str = Field(max_length=2000)
    """What is seen, with its figures, and what to change."""
    option: str | None = Field(default=None, max_length=500)
    """What to add to the command, such as ``--set epochs=24``, or a command; ``None`` where none helps."""
    values: dict[str, float] = Field(default_factory=dict)
    """The figures that it rests on: fractions 0..1, losses, counts, and ``p``."""
