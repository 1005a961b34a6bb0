"""The shares of a batch: what an update sees of each, alone or together with others."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from temper.data import Part
from temper.models import Gather, WholeBatch


@dataclass(frozen=True)
class StepImages:
    """What one update sees of a share. Images float (B,3,H,W) in [0,1]."""

    clean: Mapping[str, Tensor]
    """Task -> images."""
    labels: Mapping[str, Tensor]
    """Task -> classes (B,) or, mixed, their shares (B,C)."""
    attacked: Mapping[str, Tensor]
    """Task -> adversarial examples of those tasks that are attacked."""
    share: int = 0
    """Which of the batch's shares they are."""
    parts: Mapping[str, Part] = field(default_factory=dict)
    """Task -> the share. Where that is empty, images of no weight stand for it."""
    penalty_weight: float = 1.0
    """Of what does not depend on images: of all shares that have any, the mean is 1."""
    entropy_weight: Tensor | None = None
    """Of the target's cross-entropy, where its classes have weights: those of an image here over those of the
    whole batch.
    """

    def weight(self, task: str) -> float:
        """Of the mean over its images: of all shares, the mean is 1."""
        return self.parts[task].weight if task in self.parts else 1.0


def joined(parts: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """Task -> what each of ``parts`` has of it, one after the other."""
    if len(parts) == 1:
        return dict(parts[0])
    return {task: torch.cat([part[task] for part in parts]) for task in parts[0]}


def separated(values: Mapping[str, Tensor], shares: Sequence[StepImages]) -> list[dict[str, Tensor]]:
    """What of the joined ``values`` belongs to each of ``shares``; ``recall`` to their target images."""
    if len(shares) == 1:
        return [dict(values)]
    parts = {
        name: torch.split(value, [len(own.clean["target" if name == "recall" else name]) for own in shares])
        for name, value in values.items()
    }
    return [{name: part[index] for name, part in parts.items()} for index in range(len(shares))]


def whole_batch(shares: Sequence[StepImages], tasks: Iterable[str], gather: Gather) -> WholeBatch:
    """The batch of which ``shares``, with their images of ``tasks``, are a part."""
    rows: list[int | None] = []
    size = 0
    for task in tasks:
        for own in shares:
            part = own.parts[task]
            places = range(size + part.start, size + part.end)
            rows += places or [None] * len(own.clean[task])
        size += shares[0].parts[task].size
    return WholeBatch(rows, size, gather)
