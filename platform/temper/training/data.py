"""The images that a run consumes, already opened: batches to train on, arrays to validate on."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from temper.attacks import PartGenerator
from temper.batches import Batch, Batches, augment
from temper.data import MIN_SHARE, AugmentSpec, Images, Part
from temper.records import Depth


@dataclass(frozen=True)
class TrainData:
    """Everything that the loop reads. Images are uint8 (N,3,S,S); batches are this rank's shares."""

    classes: dict[str, list[str]]
    """Task -> class names; the tasks are ``target`` and, with a source, ``source``."""
    fingerprints: dict[str, str]
    class_counts: list[int]
    """Training images of each target class."""
    target: Batches
    source: Batches | None
    val: dict[str, Images]
    """Task -> validation images."""
    num_shares: int = 1
    """Parts of each batch, which the workers take in turn."""
    depth: Depth | None = None
    """How target images of more than 8 bits were scaled."""

    def close(self) -> None:
        """Release what is being prefetched."""
        self.target.close()
        if self.source is not None:
            self.source.close()


def paired_batches(
    feed: TrainData, epoch: int, uses_source: bool, first: int = 0
) -> Iterator[dict[str, Batch]]:
    """One epoch over the target from batch ``first`` on, with the source cycled beside it."""
    if not uses_source or feed.source is None:
        for batch in feed.target.epoch(epoch, first):
            yield {"target": batch}
        return
    source = feed.source.cycle(epoch * feed.target.num_batches + first)
    for batch in feed.target.epoch(epoch, first):
        yield {"target": batch, "source": next(source)}


def to_device(
    batch: Batch, spec: AugmentSpec | None, device: torch.device, seed: int
) -> tuple[Tensor, Tensor]:
    """Augmented images (B,3,S,S) in [0,1] and labels (B,) on ``device``; from ``seed``.

    A single share gets the parameters that its images have in the whole batch.
    """
    generator = generator_of(batch.parts if len(batch.parts) == 1 else (), device, seed)
    return augment(_sent(batch.images, device), spec, generator), _sent(batch.labels, device)


def generator_of(parts: Sequence[Part], device: torch.device, seed: int) -> torch.Generator:
    """What the images of ``parts`` draw from, or, without any, those of a whole batch.

    Stand-ins for an empty part draw what the first images do.
    """
    if not parts:
        return torch.Generator(device).manual_seed(seed)
    places = [(part.start, part.end) if len(part) else (0, MIN_SHARE) for part in parts]
    return PartGenerator(device, places, parts[0].size).manual_seed(seed)


def _sent(values: Tensor, device: torch.device) -> Tensor:
    """``values`` on ``device``; the copy may still be running.

    Only a copy out of pinned memory lets this process prepare the next steps meanwhile.
    """
    if device.type == "cuda" and values.device.type == "cpu":
        values = values.pin_memory()
    return values.to(device, non_blocking=True)
