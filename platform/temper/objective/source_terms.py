"""The term that alpha weights: how a run retains its source task.

Add one: a subclass of ``SourceTerm``, and its name in ``AnySourceTerm``.
"""

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from temper.models import TaskModel
from temper.spec import Spec


class SourceTerm(Spec):
    """Base of the source terms."""

    kind: str

    reads_source: ClassVar[bool] = False
    """Whether source images take part."""
    trains_source_head: ClassVar[bool] = False
    needs_start: ClassVar[bool] = False
    """Whether the model that the run started from is kept beside it: then ``loss`` is what alpha weighs."""
    recalls_source: ClassVar[bool] = False
    """Whether the source head answers to the target's clean images."""

    def loss(self, model: TaskModel, start: TaskModel, images: Tensor, recall: Tensor | None) -> Tensor:
        """What holds ``model`` to its ``start``, for clean target ``images`` (B,3,H,W).

        ``recall`` (B,C) is the source head's answer to them, where it ``recalls_source``.
        """
        raise AssertionError(f"{type(self).__name__} reads source images, or nothing")

    def penalty(self, model: TaskModel) -> Tensor | None:
        """What is added to the loss, independent of alpha."""
        return None


class Replay(SourceTerm):
    """The mean cross-entropy of source images, replayed with the target's: the reference form."""

    kind: Literal["replay"] = "replay"

    reads_source: ClassVar[bool] = True
    trains_source_head: ClassVar[bool] = True


class L2SP(SourceTerm):
    """Half the squared distance of the backbone from its start. Li et al. 2018, arXiv:1802.01483.

    No source images are read. ``optim.weight_decay`` must be 0, because it pulls to the origin instead.
    """

    kind: Literal["l2sp"] = "l2sp"
    head_decay: float = Field(default=0.01, ge=0, le=100)
    """Weight of half the squared norm of the target head, added to the source term."""

    needs_start: ClassVar[bool] = True

    def loss(self, model: TaskModel, start: TaskModel, images: Tensor, recall: Tensor | None) -> Tensor:
        body = {n: p for n, p in model.named_parameters() if n.startswith("backbone.") and p.requires_grad}
        return self.distance(body, dict(start.named_parameters())).to(images.device)

    def penalty(self, model: TaskModel) -> Tensor | None:
        return self.decay({n: p for n, p in model.named_parameters() if n.startswith("heads.target.")})

    def distance(self, parameters: Mapping[str, Tensor], start: Mapping[str, Tensor]) -> Tensor:
        """Half the sum of (w - w0)^2 over ``parameters``; ``start`` has a value for each name."""
        squares = [(parameter - start[name]).square().sum() for name, parameter in parameters.items()]
        return 0.5 * torch.stack(squares).sum() if squares else torch.zeros(())

    def decay(self, head: Mapping[str, Tensor]) -> Tensor:
        """Half ``head_decay`` times the sum of w^2 over the target head."""
        return 0.5 * self.head_decay * torch.stack([w.square().sum() for w in head.values()]).sum()


class LwF(SourceTerm):
    """Learning without forgetting. Li and Hoiem 2016, arXiv:1606.09282.

    The source head keeps the start model's outputs for clean target images: no source images are read.
    ``temperature`` softens both outputs.
    """

    kind: Literal["lwf"] = "lwf"
    temperature: float = Field(default=2.0, gt=0, le=100)

    trains_source_head: ClassVar[bool] = True
    needs_start: ClassVar[bool] = True
    recalls_source: ClassVar[bool] = True

    def loss(self, model: TaskModel, start: TaskModel, images: Tensor, recall: Tensor | None) -> Tensor:
        assert recall is not None
        with torch.no_grad():
            answers = start(images, "source")
        return self.distillation(recall, answers)

    def distillation(self, logits: Tensor, start_logits: Tensor) -> Tensor:
        """T^2 * mean KL(start || now) of the softened answers, from logits (B,C) of the source head.

        T^2 keeps the gradient's size whatever the temperature (Hinton et al. 2015, arXiv:1503.02531).
        """
        now = (logits / self.temperature).log_softmax(1)
        start = (start_logits / self.temperature).softmax(1)
        return self.temperature**2 * F.kl_div(now, start, reduction="batchmean")


class NoSource(SourceTerm):
    """The target alone, for any alpha."""

    kind: Literal["none"] = "none"


AnySourceTerm = Annotated[Replay | L2SP | LwF | NoSource, Field(discriminator="kind")]
