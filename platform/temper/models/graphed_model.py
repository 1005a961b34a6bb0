"""Models whose passes are replayed on a GPU: in front of an attack, and in training."""

import itertools
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from temper.models.cuda_graphs import Key, Places, Recording, key_of, recorded
from temper.models.task_model import TaskModel


class ReplayedModel(nn.Module):
    """Answers as ``model`` does, by the recordings of the first shape that each task's images have.

    Other shapes, and whatever cannot be recorded, go through the model itself. It must be held still
    (``attack_mode``) while it is called; in between its tensors may change in place.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.module = model
        self._recordings: dict[tuple[str, ...], tuple[Key, Recording | None]] = {}
        self._places = Places()

    def forward(self, images: Tensor, *task: str) -> Tensor:
        """Logits (B,C) of ``images`` (B,3,H,W) in [0,1]."""
        is_climbed = torch.is_grad_enabled() and images.requires_grad
        recording = self._recording_for(images, *task) if is_climbed else None
        if recording is None:
            logits: Tensor = self.module(images, *task)
            return logits
        replayed: Tensor = _ToImages.apply(images, recording)
        return replayed

    @property
    def num_recordings(self) -> int:
        """Tasks whose passes are replayed."""
        return sum(recording is not None for _, recording in self._recordings.values())

    def refresh(self) -> None:
        """Forget what was recorded if anything that it read now lies elsewhere."""
        if self._places.have_changed(itertools.chain(self.module.parameters(), self.module.buffers())):
            self._recordings.clear()

    def _recording_for(self, images: Tensor, *task: str) -> Recording | None:
        key = key_of(images)
        if task not in self._recordings:
            self._recordings[task] = key, recorded(lambda points: self.module(points, *task), images)
        known, recording = self._recordings[task]
        return recording if known == key else None


class _ToImages(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, images: Tensor, recording: Recording) -> Tensor:
        ctx.save_for_backward(images)
        ctx.recording = recording
        logits = recording.forward(images)
        ctx.turn = recording.turn
        return logits

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, direction: Tensor) -> tuple[Tensor | None, None]:
        recording: Recording = ctx.recording
        if recording.turn != ctx.turn:  # others have gone forward since
            recording.forward(*ctx.saved_tensors)
        (gradient,) = recording.backward(direction)
        return gradient, None


class ReplayedFeatures:
    """Features as ``TaskModel.features`` gives them in training, with the way back to what trains.

    For one phase: which parameters train, and which modules, does not change. Of several passes forward
    before any goes back, the first is replayed.
    """

    def __init__(self, model: TaskModel) -> None:
        self._model = model
        self._known: tuple[Key, Recording | None] | None = None
        self._places = Places()
        self._is_busy = False
        """Whether a pass forward has not been back yet."""

    def __call__(self, images: Tensor) -> Tensor:
        """Features (B,D) of images (B,3,H,W) in [0,1]."""
        recording = None
        if torch.is_grad_enabled() and not images.requires_grad:
            recording = self._recording_for(images)
        if recording is None or self._is_busy:
            return self._model.features(images)
        features: Tensor = _ToParameters.apply(images, recording, self, *self._parameters)
        return features

    def __deepcopy__(self, memo: dict[int, Any]) -> None:
        """A copy of the model has no recordings."""

    @property
    def is_recorded(self) -> bool:
        """Whether there is something to replay."""
        return self._known is not None and self._known[1] is not None

    def mark_busy(self, is_busy: bool) -> None:
        """Whether what was recorded may not be overwritten."""
        self._is_busy = is_busy

    @property
    def _parameters(self) -> list[nn.Parameter]:
        return [parameter for parameter in self._model.backbone.parameters() if parameter.requires_grad]

    def _recording_for(self, images: Tensor) -> Recording | None:
        if self._places.have_changed(itertools.chain(self._model.parameters(), self._model.buffers())):
            self._known = None
        key = key_of(images)
        if self._known is None:
            self._known = key, self._record(images)
            self._is_busy = False
        known, recording = self._known
        return recording if known == key else None

    def _record(self, images: Tensor) -> Recording | None:
        """The statistics of BatchNorm are afterwards as before."""
        parameters = self._parameters
        if not parameters:
            return None
        saved = [(buffer, buffer.detach().clone()) for buffer in self._model.buffers()]
        try:
            return recorded(self._model.features, images, parameters)
        finally:
            for buffer, value in saved:
                buffer.copy_(value)


class _ToParameters(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, images: Tensor, recording: Recording, owner: ReplayedFeatures, *parameters: Tensor
    ) -> Tensor:
        ctx.recording, ctx.owner = recording, owner
        owner.mark_busy(True)
        return recording.forward(images)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, direction: Tensor) -> tuple[Any, ...]:
        gradients = ctx.recording.backward(direction)
        ctx.owner.mark_busy(False)
        return None, None, None, *gradients


def replayed_model(model: nn.Module, device: torch.device) -> ReplayedModel | None:
    """Where ``model`` computes on a CUDA ``device``; ``None`` on any other."""
    return ReplayedModel(model) if device.type == "cuda" else None


def replayed_features(model: TaskModel, device: torch.device) -> ReplayedFeatures | None:
    """Where ``model`` trains on a CUDA ``device``; ``None`` on any other."""
    return ReplayedFeatures(model) if device.type == "cuda" else None
