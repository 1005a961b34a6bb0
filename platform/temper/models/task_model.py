"""One backbone, one linear head per task, normalization inside."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import overload

import torch
from torch import Tensor, nn

from temper.models.adapters import AdapterController, AnyAdapter
from temper.models.backbones import Backbone
from temper.models.heads import BinaryHead
from temper.models.statistics import StartStatistics
from temper.models.whole_batch import WholeBatch


@dataclass(frozen=True)
class ForwardPass:
    """One batch through the backbone: BatchNorm sees the images of all its tasks together."""

    images: Mapping[str, Tensor]
    """Task -> images (B,3,H,W) in [0,1]."""
    statistics: StartStatistics | None = None
    """BatchNorm statistics of this pass; ``None``: what each module's mode says."""
    recalls_source: bool = False
    """Whether the source head answers to the target images as well, under the name ``recall``."""
    whole: WholeBatch | None = None
    """The batch that the images are a part of."""


class TaskModel(nn.Module):
    """Images (B,3,H,W) in [0,1] to logits (B,C) of a task.

    Called with ``{task: images}`` it answers ``{task: logits}`` from one pass over all of them, so that
    BatchNorm and DDP see a single batch; called with several passes, it answers each in turn.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self, backbone: Backbone, num_classes: Mapping[str, int], *, has_binary_target: bool = False
    ) -> None:
        super().__init__()
        mean, std = backbone.mean_std
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1))
        self.backbone = backbone.module
        self.heads = nn.ModuleDict(
            {
                task: BinaryHead(backbone.num_features)
                if has_binary_target and task == "target"
                else nn.Linear(backbone.num_features, count)
                for task, count in num_classes.items()
            }
        )
        self.adapter: AnyAdapter | None = None
        self.controller = AdapterController()
        self.memory_format = torch.channels_last
        self.is_bf16 = False
        self.replayed: Callable[[Tensor], Tensor] | None = None
        """Stands in for ``features`` in passes of training."""
        self._prefixes = _group_prefixes(backbone)

    def attach(self, adapter: AnyAdapter) -> None:
        """Put ``adapter`` into the backbone: from now on it alone trains there.

        Raises:
            ModelError: the backbone has nothing that it could adapt.
        """
        adapter.attach(self.backbone)
        self.adapter, self.controller = adapter, adapter.controller(self.backbone)

    @property
    def group_names(self) -> list[str]:
        """The groups of parameters, from the input to ``head`` (all heads together)."""
        return [*self._prefixes, "head"]

    def group_parameters(self, group: str) -> dict[str, nn.Parameter]:
        """Name -> parameter of one group; those of adapters belong to the group that they adapt."""
        prefixes = ("heads",) if group == "head" else self._prefixes[group]
        return {
            name: parameter
            for name, parameter in self.named_parameters()
            if any(name == prefix or name.startswith(f"{prefix}.") for prefix in prefixes)
        }

    def trainable_names(self, groups: Iterable[str], tasks: Iterable[str]) -> dict[str, list[str]]:
        """Group -> names of what trains in it, where only the heads of ``tasks`` take part."""
        adapted = None
        if self.adapter is not None:
            adapted = {f"backbone.{name}" for name in self.adapter.trained_names(self.backbone)}
        heads = tuple(f"heads.{task}." for task in tasks)
        wanted = set(groups)
        names: dict[str, list[str]] = {}
        for group in self.group_names:
            if group not in wanted:
                continue
            own = self.group_parameters(group)
            if group == "head":
                names[group] = [name for name in own if name.startswith(heads)]
            else:
                names[group] = [name for name in own if adapted is None or name in adapted]
        return {group: own for group, own in names.items() if own}

    def features(self, images: Tensor) -> Tensor:
        """Features (B,D) of images (B,3,H,W) in [0,1]."""
        normalized = (images - self.mean) / self.std
        features: Tensor = self.backbone(normalized.contiguous(memory_format=self.memory_format))
        return features

    @overload
    def forward(self, images: Tensor, task: str = "target") -> Tensor: ...
    @overload
    def forward(self, images: Mapping[str, Tensor]) -> dict[str, Tensor]: ...
    @overload
    def forward(self, images: Sequence[ForwardPass]) -> list[dict[str, Tensor]]: ...
    def forward(
        self, images: Tensor | Mapping[str, Tensor] | Sequence[ForwardPass], task: str = "target"
    ) -> Tensor | dict[str, Tensor] | list[dict[str, Tensor]]:
        with self._arithmetic():
            if isinstance(images, Tensor):
                logits: Tensor = self.heads[task](self.features(images)).float()
                return logits
            if isinstance(images, Mapping):
                return self._answer(ForwardPass(images))
            return [self._answer(one, self.replayed) for one in images]

    def _arithmetic(self) -> AbstractContextManager[None]:
        """Without a cache each pass casts the weights itself, and gradients of several are added in fp32."""
        if not self.is_bf16:
            return nullcontext()
        return torch.autocast(self.mean.device.type, torch.bfloat16, cache_enabled=False)

    def _answer(
        self, one: ForwardPass, replayed: Callable[[Tensor], Tensor] | None = None
    ) -> dict[str, Tensor]:
        together = torch.cat(list(one.images.values()))
        features_of = self.features if replayed is None or one.statistics or one.whole else replayed
        with one.statistics.applied() if one.statistics else nullcontext(), one.whole or nullcontext():
            features = features_of(together)
        parts = dict(
            zip(one.images, torch.split(features, [len(part) for part in one.images.values()]), strict=True)
        )
        logits: dict[str, Tensor] = {name: self.heads[name](part).float() for name, part in parts.items()}
        if one.recalls_source:
            logits["recall"] = self.heads["source"](parts["target"]).float()
        return logits


def _group_prefixes(backbone: Backbone) -> dict[str, tuple[str, ...]]:
    """Group -> names of its modules and loose parameters: names outlive what adapters put in their place."""
    modules = {id(module): name for name, module in backbone.module.named_modules()}
    parameters = {id(parameter): name for name, parameter in backbone.module.named_parameters()}
    return {
        group: tuple(f"backbone.{modules.get(id(part)) or parameters[id(part)]}" for part in parts)
        for group, parts in backbone.groups.items()
        if any(isinstance(part, nn.Parameter) or any(True for _ in part.parameters()) for part in parts)
    }


def set_trainable(
    model: TaskModel, groups: Iterable[str], tasks: Iterable[str] = ("target", "source")
) -> dict[str, list[nn.Parameter]]:
    """Make exactly these groups trainable, and of the heads only those of ``tasks``; group -> parameters.

    A head that takes no part in the loss must be frozen, or DDP waits for its gradient for ever.
    """
    names = model.trainable_names(groups, tasks)
    trainable = {name for own in names.values() for name in own}
    parameters = dict(model.named_parameters())
    for name, parameter in parameters.items():
        parameter.requires_grad_(name in trainable)
        parameter.grad = None
    return {group: [parameters[name] for name in own] for group, own in names.items()}


def train_modes(model: TaskModel, *, freeze_batch_norm: bool = False) -> list[tuple[nn.Module, bool]]:
    """Every module and whether it trains: those whose parameters are all frozen keep their statistics still.

    ``freeze_batch_norm`` keeps those of every BatchNorm still, whether its affine parameters train or not.
    """
    modes = dict.fromkeys(model.modules(), True)
    for module in model.backbone.modules():
        parameters = list(module.parameters())
        is_frozen = parameters and not any(parameter.requires_grad for parameter in parameters)
        if is_frozen or (freeze_batch_norm and isinstance(module, nn.modules.batchnorm._BatchNorm)):
            modes |= dict.fromkeys(module.modules(), False)
    return list(modes.items())


def count_params(model: nn.Module) -> int:
    """All parameters, trainable or not."""
    return sum(parameter.numel() for parameter in model.parameters())
