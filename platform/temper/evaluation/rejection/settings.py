"""What a recipe says of rejection."""

from pydantic import Field

from temper.spec import Spec
from temper.storage import Place


class RejectionSpec(Spec):
    """Rejection of answers that should not be trusted, fitted on validation images and measured on others."""

    coverage: float = Field(default=0.95, gt=0, lt=1)
    """Share of the validation images that each threshold lets pass."""
    ood: Place | None = None
    """A folder of images, or shards, of none of the classes. ``null``: the source's test images, where there
    is a source.
    """
