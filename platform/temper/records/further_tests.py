"""A further test set, such as another site's, and how far the model falls there."""

from temper.records.accuracies import Interval, Proportion
from temper.records.slices import SliceRecord, worst_slice
from temper.spec import Spec


class Drop(Interval):
    """Accuracy on the main test images minus that on others, -1..1, with its interval at 95 %."""

    value: float
    """Positive where the others are harder."""


class FurtherTestRecord(Spec):
    """The same model on other images of the same classes, attacked alike."""

    name: str
    """As ``data.tests`` calls it."""
    data_name: str
    fingerprint: str
    split: str
    """``test``, or the only one that the shards have."""
    num_images: int
    clean_acc: Proportion
    robust_acc: Proportion
    balanced_acc: float
    robust_balanced_acc: float
    clean_drop: Drop
    robust_drop: Drop
    slices: list[SliceRecord] | None = None
    """These images per value of each attribute that their shards know; ``None`` in older records."""
    unsliced: list[str] | None = None
    """Their attributes without slices, as groups and those of many values."""

    @property
    def worst_slice(self) -> SliceRecord | None:
        return worst_slice(self.slices or [])

    @property
    def different_slices(self) -> list[SliceRecord]:
        """Those with a gap that is more than chance."""
        return [one for one in self.slices or [] if one.is_different]
