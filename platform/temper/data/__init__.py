"""Images: class folders to shards, shards to decoded images, and their order. None of it needs torch."""

from temper.data.decode import (
    Images,
    decode_rows,
    decoded_bytes,
    join,
    load_images,
    paths_of,
    rows_within,
)
from temper.data.folds import FoldSpec, sites_of
from temper.data.groups import GROUP
from temper.data.image_view import Fit, ImageView
from temper.data.leaks import shared_groups, shared_pictures
from temper.data.loose import find_images, read_image, read_noted
from temper.data.manifest import SPLITS, BadImage, Manifest, Split
from temper.data.plan import MIN_SHARE, Part, Plan, num_filled, parts_of
from temper.data.settings import AugmentSpec, DataSpec, FurtherTests, MixSpec
from temper.data.shard_set import RowGroup, ShardSet
from temper.data.shards import write_shards
from temper.data.splits import stratified_subset, warn_of_absent
from temper.data.windows import Windows, window_sizes

__all__ = [
    "GROUP",
    "MIN_SHARE",
    "SPLITS",
    "AugmentSpec",
    "BadImage",
    "DataSpec",
    "Fit",
    "FoldSpec",
    "FurtherTests",
    "ImageView",
    "Images",
    "Manifest",
    "MixSpec",
    "Part",
    "Plan",
    "RowGroup",
    "ShardSet",
    "Split",
    "Windows",
    "decode_rows",
    "decoded_bytes",
    "find_images",
    "join",
    "load_images",
    "num_filled",
    "parts_of",
    "paths_of",
    "read_image",
    "read_noted",
    "rows_within",
    "shared_groups",
    "shared_pictures",
    "sites_of",
    "stratified_subset",
    "warn_of_absent",
    "window_sizes",
    "write_shards",
]
