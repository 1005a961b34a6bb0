"""The losses of one step, from one call of the model."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from torch import Tensor

from temper.hardening import Adversary, CrossEntropy
from temper.models import ForwardPass, Gather, TaskModel
from temper.objective import Objective
from temper.schedules import Phase
from temper.training.shares import StepImages, joined, separated, whole_batch
from temper.training.start_model import StartModel

Forward = Callable[[Sequence[ForwardPass]], list[dict[str, Tensor]]]
Losses = dict[str, Tensor]


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
    gather: Gather | None = None
    """From all processes, where the model has to see the images as a part of the whole batch."""

    def passes(self, shares: Sequence[StepImages], adversary: Adversary | None) -> list[ForwardPass]:
        """What goes through the model: both forms of the images where the adversary's loss reads both."""
        recalls_source = self.objective.term.recalls_source
        clean, attacked = joined([own.clean for own in shares]), joined([own.attacked for own in shares])
        if adversary is None or not adversary.needs_clean:
            batches = [{**clean, **attacked}]
        else:
            batches = [clean, attacked]
        own = [
            ForwardPass(batch, recalls_source=recalls_source and index == 0)
            for index, batch in enumerate(batches)
        ]
        if self.phase.batch_norm != "twin":
            return own
        return own + [ForwardPass(batch, statistics=self.start.statistics) for batch in batches]

    def __call__(
        self, forward: Forward, shares: Sequence[StepImages], adversary: Adversary | None, progress: float
    ) -> Losses:
        """The losses, summed over ``shares`` that go through the model together, at ``progress`` 0..1 of the
        run; ``forward`` is the model, wrapped or not.
        """
        passes = self.passes(shares, adversary)
        if self.gather is not None:
            passes = [replace(one, whole=whole_batch(shares, one.images, self.gather)) for one in passes]
        answers = [separated(logits, shares) for logits in forward(passes)]
        sums: Losses = {}
        for index, own in enumerate(shares):
            found = self._losses([answer[index] for answer in answers], own, adversary, progress)
            for name, value in found.items():
                sums[name] = sums[name] + value if name in sums else value
        return sums

    def _losses(
        self,
        outputs: Sequence[Mapping[str, Tensor]],
        images: StepImages,
        adversary: Adversary | None,
        progress: float,
    ) -> Losses:
        """Those of one share."""
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
