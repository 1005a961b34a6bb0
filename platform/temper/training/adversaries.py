"""Adversarial examples of a step's images, and their cost."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from torch import Tensor, nn

from temper.attacks import attack_mode, images_at_once
from temper.data import Part
from temper.hardening import Adversary
from temper.models import FoldedModel, ReplayedModel, TaskModel, folded_model, replayed_model
from temper.seeds import derive_seed
from temper.training.data import generator_of
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


def attack_tasks(
    attacked_model: AttackedModel,
    adversary: Adversary,
    images: Mapping[str, Tensor],
    labels: Mapping[str, Tensor],
    seed: int,
    parts: Mapping[str, Part] | None = None,
) -> tuple[dict[str, Tensor], Passes]:
    """Adversarial examples of the attacked tasks, made on the unwrapped model, and the passes they took.

    ``parts`` of a whole batch start as they do in it; where one is empty, its stand-ins stay as they are.
    """
    parts = parts or {}
    attacked = {task: images[task] for task in adversary.attacked_tasks}
    tasks = [task for task in attacked if task not in parts or len(parts[task])]
    passes = Passes()
    if not tasks:
        return attacked, passes
    with attacked_model.held_still(adversary, images[tasks[0]]) as model:
        for task in tasks:
            counted = CountedLogits(model, task, needs_whole_batch=adversary.attack_batch_norm == "train")
            # The target's own seed is the step's: attacking the source as well does not change it.
            own = seed if task == "target" else derive_seed(seed, task)
            generator = generator_of(parts.get(task), images[task].device, own)
            attacked[task] = adversary.perturb(counted, images[task], labels[task], generator)
            passes += Passes(forward=counted.num_forward, backward=counted.num_backward)
    return attacked, passes


class CountedLogits:
    """Logits of a task, counting the images that go forward and whose gradients come back."""

    def __init__(self, model: nn.Module, task: str, *, needs_whole_batch: bool = False) -> None:
        self._model, self._task, self._needs_whole_batch = model, task, needs_whole_batch
        self.num_forward = 0
        self.num_backward = 0

    def __call__(self, images: Tensor) -> Tensor:
        logits: Tensor = self._model(images, self._task)
        self.num_forward += len(images)
        if logits.requires_grad:
            logits.register_hook(self._count_backward)  # type: ignore[no-untyped-call]
        return logits

    def images_at_once(self, images: Tensor) -> int:
        """How many of ``images`` (B,3,H,W) an attack sends through at once."""
        return len(images) if self._needs_whole_batch else images_at_once(self._model, images)

    def _count_backward(self, gradient: Tensor) -> None:
        self.num_backward += len(gradient)
