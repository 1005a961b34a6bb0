"""From batches to what an update sees: on the device, augmented and mixed.

What is random belongs to an image's place in the whole batch, so it is the same whoever computes which share.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from temper.batches import Batch, mix
from temper.data import MIN_SHARE, num_filled
from temper.recipe import Recipe
from temper.seeds import derive_seed
from temper.training.data import TrainData, to_device
from temper.training.shares import StepImages
from temper.training.worker import Worker


class Preparation:
    """Prepares this worker's ``shares`` of each batch."""

    def __init__(
        self,
        recipe: Recipe,
        feed: TrainData,
        worker: Worker,
        shares: Sequence[int],
        class_weights: Tensor | None,
    ) -> None:
        self._data, self._seed = recipe.data, recipe.seed
        self._feed, self._worker, self._shares = feed, worker, shares
        self._class_weights = class_weights

    def __call__(self, batches: Mapping[str, Batch], epoch: int, step: int) -> list[StepImages]:
        """The shares that have images. There is one at least: stand-ins, where this worker has none.

        Every worker goes through the model as often as the others wait for its gradients.
        """
        own = {task: batch.split() for task, batch in batches.items()}
        sizes = [parts[0].parts[0] for parts in own.values()]
        filled = max(num_filled(part.size, part.num_shares) for part in sizes)
        places = [index for index, share in enumerate(self._shares) if share < filled] or [0]
        prepared = []
        for index in places:
            share = self._shares[index]
            parts = {task: one[index] for task, one in own.items()}
            weight = self._feed.num_shares / filled if share < filled else 0.0
            prepared.append(self._augmented(parts, share, weight, epoch, step))
        if self._data.mixing is not None:
            return self._mixed(prepared, derive_seed(self._seed, "mix", epoch, step, 0))
        return prepared if self._class_weights is None else self._weighed(prepared, self._class_weights)

    def _augmented(
        self, batches: Mapping[str, Batch], share: int, penalty_weight: float, epoch: int, step: int
    ) -> StepImages:
        seed, device = derive_seed(self._seed, "augment", epoch, step, 0), self._worker.device
        found = {
            task: to_device(batch, self._data.augment, device, seed)
            if len(batch.rows)
            else self._stand_ins(task, batch)
            for task, batch in batches.items()
        }
        return StepImages(
            clean={task: images for task, (images, _) in found.items()},
            labels={task: labels for task, (_, labels) in found.items()},
            attacked={},
            share=share,
            parts={task: batch.parts[0] for task, batch in batches.items()},
            penalty_weight=penalty_weight,
        )

    def _stand_ins(self, task: str, batch: Batch) -> tuple[Tensor, Tensor]:
        """Black images of a class that has some in training: their loss is finite, and counts nothing."""
        counts = self._feed.class_counts
        label = counts.index(max(counts)) if task == "target" else 0
        shape = (MIN_SHARE, *batch.images.shape[1:])
        device = self._worker.device
        return torch.zeros(shape, device=device), torch.full(shape[:1], label, device=device)

    def _mixed(self, prepared: list[StepImages], seed: int) -> list[StepImages]:
        """Each image mixed with the one before it in the whole batch, the first with the last."""
        spec, num_classes = self._data.mixing, len(self._feed.classes["target"])
        assert spec is not None
        before = self._images_before(prepared)
        mixed = []
        for own in prepared:
            images, labels = own.clean["target"], own.labels["target"]
            if own.weight("target"):
                images, labels = mix(images, labels, spec, num_classes, seed, before.get(own.share))
            else:
                labels = F.one_hot(labels, num_classes).float()
            clean, classes = {**own.clean, "target": images}, {**own.labels, "target": labels}
            mixed.append(replace(own, clean=clean, labels=classes))
        return mixed

    def _images_before(self, prepared: list[StepImages]) -> dict[int, tuple[Tensor, Tensor]]:
        """Share -> the image and the label before its first; nothing where one share is the whole batch."""
        part, clean = prepared[0].parts["target"], prepared[0].clean["target"]
        if part.num_shares == 1:
            return {}
        images = clean.new_zeros(part.num_shares, *clean.shape[1:])
        labels = prepared[0].labels["target"].new_zeros(part.num_shares)
        for own in prepared:
            if own.weight("target"):
                images[own.share] = own.clean["target"][-1]
                labels[own.share] = own.labels["target"][-1]
        # Each share's is with one worker only, so the sums are what each has.
        images, labels = self._worker.sum(images), self._worker.sum(labels)
        filled = num_filled(part.size, part.num_shares)
        places = [(share, (share - 1) % filled) for share in range(filled)]
        return {share: (images[last : last + 1], labels[last : last + 1]) for share, last in places}

    def _weighed(self, prepared: list[StepImages], class_weights: Tensor) -> list[StepImages]:
        """With what the mean of a share's weighted images lacks to count as in the whole batch."""
        part = prepared[0].parts["target"]
        if part.num_shares == 1:
            return prepared
        sums = [class_weights[own.labels["target"]].sum() * bool(own.weight("target")) for own in prepared]
        mean = self._worker.sum(torch.stack(sums).sum()) / part.size
        return [
            replace(own, entropy_weight=total / len(own.parts["target"]) / mean)
            if own.weight("target")
            else own
            for own, total in zip(prepared, sums, strict=True)
        ]
