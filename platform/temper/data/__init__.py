"""Images: class folders to shards, shards to batches."""

from typing import Literal

from pydantic import Field

from temper.data.augment import AugmentSpec, augment
from temper.data.batches import Batch, Batches, Plan, ResidentBatches, cycle
from temper.data.decode import Fit, Images, decode_rows, decoded_bytes, join, load_images, rows_within
from temper.data.fingerprint import read_fingerprint
from temper.data.folds import FoldSpec
from temper.data.loose import find_images, read_image
from temper.data.manifest import BadImage, Manifest, Split
from temper.data.mixing import MixSpec, mix
from temper.data.shard_set import RowGroup, ShardSet
from temper.data.shards import write_shards
from temper.data.splits import stratified_subset
from temper.spec import Spec
from temper.storage import Place

__all__ = [
    "AugmentSpec",
    "BadImage",
    "Batch",
    "Batches",
    "DataSpec",
    "Fit",
    "FoldSpec",
    "Images",
    "Manifest",
    "MixSpec",
    "Plan",
    "ResidentBatches",
    "RowGroup",
    "ShardSet",
    "Split",
    "augment",
    "cycle",
    "decode_rows",
    "decoded_bytes",
    "find_images",
    "join",
    "load_images",
    "mix",
    "read_fingerprint",
    "read_image",
    "rows_within",
    "stratified_subset",
    "write_shards",
]


class DataSpec(Spec):
    """The images of a run: shards of the target task and, where one takes part, of the source task."""

    target: Place
    source: Place | None = None
    image_size: int = Field(ge=8, le=1024)
    """Height and width that the model sees, in pixels."""
    fit: Fit = "pad"
    batch_size: int = Field(default=64, ge=2)
    """Per worker; where workers come and go, per worker of their largest number."""
    source_batch_size: int | None = Field(default=None, ge=2)
    """Counted alike; ``null``: as ``batch_size``."""
    resident: bool | Literal["auto"] = "auto"
    """Decode once and keep in memory. ``auto``: where both training splits fit in 2 GiB."""
    augment: AugmentSpec | None = None
    mixing: MixSpec | None = None
    """Of target images."""
    sampling: Literal["uniform", "balanced"] = "uniform"
    """``balanced``: every class of the target equally often in each epoch; needs resident images."""
    shots_per_class: int | None = Field(default=None, ge=1)
    """Few-shot: so many training images of each target class, drawn by the recipe's seed."""
    fold: FoldSpec | None = None
    """The target's splits are those of one fold of a cross-validation; ``null``: those of the manifest."""
