"""Decoded images as batches of tensors: out of memory, augmented, mixed."""

from temper.batches.augment import augment, warp
from temper.batches.mixing import mix
from temper.batches.resident import Batch, Batches, ResidentBatches, cycle

__all__ = ["Batch", "Batches", "ResidentBatches", "augment", "cycle", "mix", "warp"]
