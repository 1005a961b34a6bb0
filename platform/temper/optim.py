"""Optimizers and learning rates as functions of progress."""

import math
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import nn

from temper.spec import Ratio, Spec


class OptimSpec(Spec):
    """An optimizer and its learning-rate schedule over the whole run."""

    kind: Literal["sgd", "adamw"] = "sgd"
    lr: Annotated[Ratio, Field(gt=0, le=10)] | Literal["auto"] = 0.05
    """``auto``: measured by a range test on the run's own images before its first step; the default for
    pretrained weights.
    """
    momentum: float = Field(default=0.9, ge=0, lt=1)
    """SGD only."""
    weight_decay: Ratio = Field(default=5e-4, ge=0, le=1)
    lr_schedule: Literal["constant", "cosine", "cyclic"] = "cosine"
    """cyclic: linearly from 0 to lr and back to 0 (Wong et al. 2020, arXiv:2001.03994)."""
    warmup_frac: float = Field(default=0.0, ge=0, lt=1)
    """Share of the run in which a constant or cosine rate rises from 0."""
    max_grad_norm: float | None = Field(default=None, gt=0)

    ema_decay: Annotated[float, Field(gt=0, lt=1)] | Literal["auto"] | None = None
    """Averages the weights: after each step ``decay * average + (1 - decay) * weights`` (Izmailov et al.
    2018, arXiv:1803.05407). The averaged weights are validated, kept as the best epoch, and evaluated.
    ``auto``: over about the last tenth of the run's steps.
    """

    def build(
        self, groups: Mapping[str, Sequence[nn.Parameter]], lr_factors: Mapping[str, float] | None = None
    ) -> torch.optim.Optimizer:
        """An optimizer of the parameters of each group, at the full rate times the group's factor."""
        factors = dict.fromkeys(groups, 1.0) | dict(lr_factors or {})
        packed = [
            {"params": list(own), "lr": self.full_lr * factors[name], "lr_factor": factors[name]}
            for name, own in groups.items()
        ]
        # On a GPU one kernel updates all parameters. The CPU's saves less than 1 % of a step, and would move
        # every seeded run.
        is_fused = all(parameter.is_cuda for own in groups.values() for parameter in own) or None
        common: dict[str, Any] = {"lr": self.full_lr, "weight_decay": self.weight_decay, "fused": is_fused}
        if self.kind == "sgd":
            return torch.optim.SGD(packed, momentum=self.momentum, **common)
        return torch.optim.AdamW(packed, **common)

    def lr_at(self, progress: float) -> float:
        """The learning rate at ``progress`` 0..1 of the run."""
        if self.lr_schedule == "cyclic":
            return self.full_lr * (1 - abs(2 * progress - 1))
        if progress < self.warmup_frac:
            return self.full_lr * progress / self.warmup_frac
        if self.lr_schedule == "constant":
            return self.full_lr
        return self.full_lr * 0.5 * (1 + math.cos(math.pi * progress))

    def ema_decay_of(self, num_steps: int) -> float | None:
        """The decay of a run of ``num_steps``; ``None``: nothing is averaged."""
        if self.ema_decay == "auto":
            return max(0.5, 1 - 10 / num_steps)
        return None if self.ema_decay is None else float(self.ema_decay)

    @property
    def full_lr(self) -> float:
        """The rate as a number; ``auto`` must have been measured by now (``measured``)."""
        assert self.lr != "auto", "the rate has not been measured"
        return float(self.lr)

    def measured(self, lr: float) -> "OptimSpec":
        """The same with ``lr`` where it was ``auto``."""
        return self if self.lr != "auto" else self.model_copy(update={"lr": lr})
