"""One backbone, one linear head per task, normalization inside."""

from collections.abc import Iterable, Mapping
from typing import overload

import torch
from torch import Tensor, nn

from temper.models.backbones import Backbone


class TaskModel(nn.Module):
    """Images (B,3,H,W) in [0,1] to logits (B,C) of a task.

    Called with ``{task: images}`` it answers ``{task: logits}`` from one pass over all of them, so that
    BatchNorm and DDP see a single batch.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, backbone: Backbone, num_classes: Mapping[str, int]) -> None:
        super().__init__()
        mean, std = backbone.mean_std
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1))
        self.backbone = backbone.module
        self.heads = nn.ModuleDict(
            {task: nn.Linear(backbone.num_features, count) for task, count in num_classes.items()}
        )
        self._groups = backbone.groups

    @property
    def group_names(self) -> list[str]:
        """The groups of parameters, from the input to ``head`` (all heads together)."""
        return [*self._groups, "head"]

    def group_parameters(self, group: str) -> list[nn.Parameter]:
        """The parameters of one group."""
        parts = list(self.heads.values()) if group == "head" else self._groups[group]
        return [
            parameter
            for part in parts
            for parameter in ([part] if isinstance(part, nn.Parameter) else part.parameters())
        ]

    def features(self, images: Tensor) -> Tensor:
        """Features (B,D) of images (B,3,H,W) in [0,1]."""
        normalized = (images - self.mean) / self.std
        features: Tensor = self.backbone(normalized.contiguous(memory_format=torch.channels_last))
        return features

    @overload
    def forward(self, images: Tensor, task: str = "target") -> Tensor: ...
    @overload
    def forward(self, images: Mapping[str, Tensor]) -> dict[str, Tensor]: ...
    def forward(
        self, images: Tensor | Mapping[str, Tensor], task: str = "target"
    ) -> Tensor | dict[str, Tensor]:
        if isinstance(images, Tensor):
            logits: Tensor = self.heads[task](self.features(images))
            return logits
        features = self.features(torch.cat(list(images.values())))
        parts = torch.split(features, [len(part) for part in images.values()])
        return {name: self.heads[name](part) for name, part in zip(images, parts, strict=True)}


def set_trainable(
    model: TaskModel, groups: Iterable[str], tasks: Iterable[str] = ("target", "source")
) -> list[nn.Parameter]:
    """Make exactly these groups trainable, and of the heads only those of ``tasks``; return the parameters.

    A head that takes no part in the loss must be frozen, or DDP waits for its gradient for ever.
    """
    wanted = set(groups)
    unused = {
        id(p) for task, head in model.heads.items() if task not in set(tasks) for p in head.parameters()
    }
    trainable = []
    for group in model.group_names:
        for parameter in model.group_parameters(group):
            parameter.requires_grad_(group in wanted and id(parameter) not in unused)
            parameter.grad = None
            if parameter.requires_grad:
                trainable.append(parameter)
    return trainable


def train_mode(model: TaskModel) -> None:
    """Training mode, except that modules whose parameters are all frozen keep their statistics still."""
    model.train()
    for module in model.backbone.modules():
        parameters = list(module.parameters())
        if parameters and not any(parameter.requires_grad for parameter in parameters):
            module.eval()


def count_params(model: nn.Module) -> int:
    """All parameters, trainable or not."""
    return sum(parameter.numel() for parameter in model.parameters())
