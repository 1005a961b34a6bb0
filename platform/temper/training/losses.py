"""The losses of one step, from one call of the model."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from torch import Tensor

from temper.data import Part
from temper.hardening import Adversary, CrossEntropy
from temper.models import ForwardPass, TaskModel
from temper.objective import Objective
from temper.schedules import Phase
from temper.training.start_model import StartModel

Forward = Callable[[Sequence[ForwardPass]], list[dict[str, Tensor]]]
Losses = dict[str, Tensor]


@dataclass(frozen=True)
class StepImages:
    """What one update sees. Images float (B,3,H,W) in [0,1]."""

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


@dataclass(frozen=True)
class StepLoss:
    """``loss`` and its parts, as scalars: of the target, of the source term, and of the twin.

    Of a share each has the weight with which the mean over all shares is the loss of the whole batch.
    """

    objective: Objective
    phase: Phase
    model: TaskModel
    start: StartModel
    class_weights: Tensor | None

    def passes(self, images: StepImages, adversary: Adversary | None) -> list[ForwardPass]:
        """What goes through the model: both forms of the images where the adversary's loss reads both."""
        recalls_source = self.objective.term.recalls_source
        if adversary is None or not adversary.needs_clean:
            batches = [{**images.clean, **images.attacked}]
        else:
            batches = [dict(images.clean), dict(images.attacked)]
        own = [
            ForwardPass(batch, recalls_source=recalls_source and index == 0)
            for index, batch in enumerate(batches)
        ]
        if self.phase.batch_norm != "twin":
            return own
        return own + [ForwardPass(batch, statistics=self.start.statistics) for batch in batches]

    def __call__(
        self, forward: Forward, images: StepImages, adversary: Adversary | None, progress: float
    ) -> Losses:
        """The losses at ``progress`` 0..1 of the run; ``forward`` is the model, wrapped or not."""
        outputs = forward(self.passes(images, adversary))
        if self.phase.batch_norm != "twin":
            losses = self._task_losses(outputs, images, adversary, progress)
        else:
            half = len(outputs) // 2
            losses = self._task_losses(outputs[:half], images, adversary, progress)
            twin = self._task_losses(outputs[half:], images, adversary, progress)["loss"]
            weight = self.phase.twin_weight
            losses |= {"loss": (losses["loss"] + weight * twin) / (1 + weight), "twin/loss": twin}
        return self._with_source_term(losses, outputs, images, progress)

    def _task_losses(
        self,
        outputs: Sequence[Mapping[str, Tensor]],
        images: StepImages,
        adversary: Adversary | None,
        progress: float,
    ) -> Losses:
        losses: Losses = {}
        for task, labels in images.labels.items():
            entropy = self._cross_entropy(task, images)
            if adversary is None or task not in images.attacked:
                loss = entropy(outputs[0][task], labels)
            else:
                clean = outputs[0][task] if adversary.needs_clean else None
                loss = adversary.loss(clean, outputs[-1][task], labels, entropy)
            losses[f"{task}/loss"] = _weighted(loss, images.weight(task))
        total = losses["target/loss"]
        if "source/loss" in losses:
            total = total + self.objective.alpha_at(progress) * losses["source/loss"]
        return {"loss": total, **losses}

    def _cross_entropy(self, task: str, images: StepImages) -> CrossEntropy:
        entropy = self.objective.cross_entropy(self.class_weights if task == "target" else None)
        weight = images.entropy_weight
        if task != "target" or weight is None:
            return entropy
        return lambda logits, labels: weight * entropy(logits, labels)

    def _with_source_term(
        self, losses: Losses, outputs: Sequence[Mapping[str, Tensor]], images: StepImages, progress: float
    ) -> Losses:
        """With a source term that reads no source images, and with what does not depend on images."""
        term = self.objective.term
        if term.needs_start:
            assert self.start.model is not None
            own = term.loss(self.model, self.start.model, images.clean["target"], outputs[0].get("recall"))
            own = _weighted(own, images.weight("target") if term.recalls_source else images.penalty_weight)
            total = losses["loss"] + self.objective.alpha_at(progress) * own
            losses |= {"loss": total, f"{term.kind}/loss": own}
        for penalty in (term.penalty(self.model), self.model.controller.regularization()):
            if penalty is not None:
                losses["loss"] = losses["loss"] + _weighted(penalty, images.penalty_weight)
        return losses


def _weighted(loss: Tensor, weight: float) -> Tensor:
    return loss if weight == 1 else loss * weight
