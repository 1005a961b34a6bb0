"""What is left of a model's accuracy under corruptions that nobody chose against it."""

from typing import Annotated, Literal

from pydantic import Field

from temper.spec import Spec

Fraction = Annotated[float, Field(ge=0, le=1)]


class CorruptionRecord(Spec):
    """Accuracy on corrupted test images (Hendrycks and Dietterich 2019, arXiv:1903.12261)."""

    group: Literal["common", "medical", "xray", "lighting", "weather"]
    kinds: dict[str, list[Fraction]]
    """Kind -> accuracy at severity 1 to 5."""
    mean_acc: Fraction
    """Over all kinds and severities."""
    relative: float
    """mean_acc / the clean accuracy on the same images; 0 where that is 0."""
    num_images: int = Field(ge=1)
