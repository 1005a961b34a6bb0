"""Decoded images as batches of tensors: out of memory, augmented, mixed."""

from temper.batches.augment import augment, warp
from temper.batches.mixing import mix
from temper.batches.resident import Batch, Batches, ResidentBatches, cycle
from temper.batches.values import as_floats

__all__ = ["Batch", "Batches", "ResidentBatches", "as_floats", "augment", "cycle", "mix", "warp"]
