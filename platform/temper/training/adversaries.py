"""Adversarial examples of a step's images, and their cost."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace

from torch import Tensor, nn

from temper.attacks import attack_mode, images_at_once, perturb_channels
from temper.hardening import Adversary
from temper.models import (
    FoldedModel,
    Gather,
    ReplayedModel,
    TaskModel,
    WholeBatch,
    folded_model,
    replayed_model,
)
from temper.seeds import derive_seed
from temper.spec import Channels
from temper.training.data import generator_of
from temper.training.shares import StepImages, joined, separated, whole_batch
from temper.training.state import Passes


class AttackedModel:
    """A model in training as its attacks see it: through its folded twin, where it has one, and replayed, on
    a GPU.
    """

    def __init__(self, model: TaskModel) -> None:
        self.model = model
        self._twin: FoldedModel | None = None
        self._replayed: ReplayedModel | None = None
        self._is_known = False

    @contextmanager
    def held_still(self, adversary: Adversary, images: Tensor) -> Iterator[nn.Module]:
        """What is attacked now. A twin has to answer some of ``images`` first, as the model does."""
        with attack_mode(self.model, adversary.attack_batch_norm):
            yield self.model if adversary.attack_batch_norm == "train" else self._refreshed(images)

    def _refreshed(self, images: Tensor) -> nn.Module:
        if not self._is_known:
            self._twin, self._is_known = folded_model(self.model, images[:4]), True
            self._replayed = replayed_model(self._twin or self.model, images.device)
        elif self._twin is not None:
            self._twin.refresh()
        if self._replayed is not None:
            self._replayed.refresh()
        return self._replayed or self._twin or self.model


def attack_shares(
    attacked_model: AttackedModel,
    adversary: Adversary,
    shares: Sequence[StepImages],
    seed: int,
    gather: Gather | None = None,
    channels: Channels = "colour",
) -> tuple[list[StepImages], Passes]:
    """``shares`` with adversarial examples of the attacked tasks, made together on the unwrapped model; and
    the passes they took. ``channels`` are those of the target's threat model; the source may have colour.

    Images start as they do in the whole batch, and with ``gather`` BatchNorm reads its statistics: then
    stand-ins are attacked too, for other processes wait for ours. Otherwise they stay as they are.
    """
    clean, labels = joined([own.clean for own in shares]), joined([own.labels for own in shares])
    attacked = {task: clean[task] for task in adversary.attacked_tasks}
    tasks = [task for task in attacked if gather is not None or any(own.weight(task) for own in shares)]
    passes = Passes()
    still = (
        attacked_model.held_still(adversary, clean[tasks[0]]) if tasks else nullcontext(attacked_model.model)
    )
    with still as model:
        for task in tasks:
            whole = None if gather is None else whole_batch(shares, [task], gather)
            is_whole = adversary.attack_batch_norm == "train"
            counted = CountedLogits(model, task, needs_whole_batch=is_whole, whole=whole)
            # The target's own seed is the step's: attacking the source as well does not change it.
            own_seed = seed if task == "target" else derive_seed(seed, task)
            parts = [own.parts[task] for own in shares if own.parts]
            generator = generator_of(parts, clean[task].device, own_seed)
            attacked[task] = perturb_channels(
                adversary,
                counted,
                clean[task],
                labels[task],
                generator,
                channels if task == "target" else "colour",
            )
            passes += Passes(forward=counted.num_forward, backward=counted.num_backward)
    found = separated(attacked, shares)
    return [replace(own, attacked=part) for own, part in zip(shares, found, strict=True)], passes


class CountedLogits:
    """Logits of a task, counting the images that go forward and whose gradients come back."""

    def __init__(
        self,
        model: nn.Module,
        task: str,
        *,
        needs_whole_batch: bool = False,
        whole: WholeBatch | None = None,
    ) -> None:
        self._model, self._task, self._needs_whole_batch = model, task, needs_whole_batch
        self._whole = whole
        self.num_forward = 0
        self.num_backward = 0

    def __call__(self, images: Tensor) -> Tensor:
        with self._whole or nullcontext():
            logits: Tensor = self._model(images, self._task)
        self.num_forward += self._num(images)
        if logits.requires_grad:
            logits.register_hook(self._count_backward)  # type: ignore[no-untyped-call]
        return logits

    def images_at_once(self, images: Tensor) -> int:
        """How many of ``images`` (B,3,H,W) an attack sends through at once."""
        return len(images) if self._needs_whole_batch else images_at_once(self._model, images)

    def _num(self, values: Tensor) -> int:
        return len(values) if self._whole is None else len(self._whole.counted)

    def _count_backward(self, gradient: Tensor) -> None:
        self.num_backward += self._num(gradient)
