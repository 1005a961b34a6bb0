"""Features of a frozen body, computed once for each image."""

from collections.abc import Mapping

import torch
from torch import Tensor

from temper.batches import Batch
from temper.models import TaskModel

LIMIT_BYTES = 2 * 2**30


class FeatureCache:
    """Features of the images met so far, by task and row.

    The body is frozen and in eval mode, so an image has the same features in every epoch: the first epoch
    computes them, the later ones only look them up. A task whose features would take more than
    ``LIMIT_BYTES`` is computed anew each time.
    """

    def __init__(self, model: TaskModel, device: torch.device) -> None:
        self._model, self._device = model, device
        self._stored: dict[str, Tensor] = {}
        """Task -> (capacity, D), indexed by row."""
        self._known: dict[str, Tensor] = {}
        """Task -> (capacity,) bool, on the CPU."""
        self.num_computed = 0

    def of(self, batches: Mapping[str, Batch]) -> dict[str, Tensor]:
        """Task -> features (B,D) of its batch of uint8 images."""
        return {task: self._look_up(task, batch) for task, batch in batches.items()}

    @torch.no_grad()
    def _look_up(self, task: str, batch: Batch) -> Tensor:
        known = self._known.get(task)
        top = int(batch.rows.max())
        if known is not None and top < len(known) and bool(known[batch.rows].all()):
            return self._stored[task][batch.rows.to(self._device)]
        self.num_computed += len(batch.rows)
        self._model.eval()
        images = batch.images.to(self._device, non_blocking=True).float() / 255
        features = self._model.features(images).float()
        self._keep(task, batch.rows, features, top)
        return features

    def _keep(self, task: str, rows: Tensor, features: Tensor, top: int) -> None:
        known = self._known.get(task)
        if known is None or top >= len(known):
            capacity = max(1024, 2 * (top + 1))
            if capacity * features.shape[1] * features.element_size() > LIMIT_BYTES:
                return
            self._grow(task, capacity, features)
        self._stored[task][rows.to(self._device)] = features
        self._known[task][rows] = True

    def _grow(self, task: str, capacity: int, features: Tensor) -> None:
        stored = torch.empty(capacity, features.shape[1], device=self._device)
        known = torch.zeros(capacity, dtype=torch.bool)
        if task in self._stored:
            size = len(self._known[task])
            stored[:size], known[:size] = self._stored[task], self._known[task]
        self._stored[task], self._known[task] = stored, known
