"""One optimizer step: augment, attack, descend.

Each worker computes its shares of the batch, and what is summed is summed over all shares. BatchNorm and
dropout see the whole batch. So a step is the same whichever worker computes which share.
"""

from collections.abc import Callable
from contextlib import nullcontext
from functools import partial

import torch
from torch import Tensor, nn

from temper.batches import Batch
from temper.hardening import Adversary, Guard
from temper.models import TaskModel, draws, reads_whole_batch, replayed_features, train_modes
from temper.recipe import Recipe
from temper.seeds import derive_seed
from temper.training.adversaries import AttackedModel, attack_shares
from temper.training.averaging import NoAverage
from temper.training.data import TrainData
from temper.training.guard import guarded_accuracy
from temper.training.losses import Losses, StepLoss
from temper.training.perturbation import perturbed_weights
from temper.training.plan import Moment, PhasePlan
from temper.training.preparation import Preparation
from temper.training.shares import StepImages
from temper.training.start_model import StartModel
from temper.training.state import Passes
from temper.training.worker import Worker


class TrainStep:
    """The steps of one phase."""

    def __init__(
        self,
        recipe: Recipe,
        feed: TrainData,
        plan: PhasePlan,
        model: TaskModel,
        optimizer: torch.optim.Optimizer,
        worker: Worker,
        start: StartModel | None = None,
        average: NoAverage | None = None,
    ) -> None:
        self.recipe, self.feed, self.plan, self.model = recipe, feed, plan, model
        self.optimizer, self.worker, self._average = optimizer, worker, average
        self.wrapped: nn.Module = worker.wrap(model)
        self.shares = range(worker.rank, feed.num_shares, worker.world_size)
        """Those of each batch that this worker computes."""
        self._weight = worker.world_size / feed.num_shares
        weights = recipe.objective.target_class_weights(feed.class_counts)
        class_weights = None if weights is None else weights.to(worker.device)
        self.prepare = Preparation(recipe, feed, worker, self.shares, class_weights)
        self._modes = train_modes(model, freeze_batch_norm=plan.phase.batch_norm == "frozen")
        self._is_joined = feed.num_shares > 1 and reads_whole_batch(self._modes)
        """Whether our shares go through the model together, for statistics of the whole batch; otherwise one
        after the other, in less memory.
        """
        is_drawn = feed.num_shares > 1 and draws(self._modes)
        gather = worker.gather if self._is_joined or is_drawn else None
        self.loss = StepLoss(
            recipe.objective, plan.phase, model, start or StartModel(), class_weights, gather
        )
        self.first_images: list[StepImages] = []
        """What the first step of the latest epoch saw, before any attack: of each share."""
        self._attacked = AttackedModel(model)
        # With several workers DDP sends gradients while others are computed: a recording has no such parts.
        model.replayed = replayed_features(model, worker.device) if worker.world_size == 1 else None

    def __call__(self, batches: dict[str, Batch], now: Moment) -> tuple[Losses, Passes]:
        """Losses as scalars on the device, summed over our shares and not yet waited for, and the passes."""
        self.worker.share_buffers(self.model)
        images = self.prepare(batches, now.epoch, now.step)
        if now.step == 0:
            self.first_images = images
        adversary = self.adversary(now.progress)
        passes = Passes()
        if adversary is not None:
            self.train_mode()  # which the attack looks at where it uses batch statistics
            seed = derive_seed(self.recipe.seed, "attack", now.epoch, now.step, 0)
            gather = self.worker.gather if self._is_joined else None
            channels = self.recipe.threat.channels
            clean, images = images, []
            for group in self._groups(clean):
                attacked, cost = attack_shares(self._attacked, adversary, group, seed, gather, channels)
                images += attacked
                passes += cost
        return self._descend(images, adversary, now, passes)

    def state(self) -> dict[str, Tensor]:
        """What is carried from step to step within an epoch, of all workers; nothing here."""
        return {}

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Go on from ``state``."""

    def adversary(self, progress: float) -> Adversary | None:
        """Who attacks at ``progress`` of the run: nobody in a clean phase, or while eps is 0."""
        adversary = self.recipe.objective.adversary
        if not self.plan.is_attacked or adversary is None:
            return None
        now = adversary.at(progress)
        return now if now.eps > 0 or now.needs_clean else None

    def guarded_accuracy(self, guard: Guard, epoch: int) -> float:
        """Robust accuracy 0..1 on the first images of ``epoch``, as the guard measures it."""
        adversary = self.recipe.objective.adversary
        assert adversary is not None
        self.worker.share_buffers(self.model)
        seed = derive_seed(self.recipe.seed, "guard", epoch)
        channels = self.recipe.threat.channels
        return guarded_accuracy(self.model, adversary, guard, self.first_images, self.worker, seed, channels)

    def train_mode(self) -> None:
        """The model as the phase updates it."""
        for module, mode in self._modes:
            if module.training != mode:
                module.training = mode

    def update(self, now: Moment) -> None:
        """One step of the optimizer at the rate of ``now``, with what adapters do after it."""
        optim = self.recipe.optim
        for group in self.optimizer.param_groups:
            group["lr"] = optim.lr_at(now.progress) * group["lr_factor"]
        if optim.max_grad_norm is not None:
            parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
            torch.nn.utils.clip_grad_norm_(parameters, optim.max_grad_norm)
        self.optimizer.step()
        if self._average is not None:
            self._average.update()
        num_epochs = now.epoch - self.plan.num_solved
        self.model.controller.after_step(num_epochs * self.feed.target.num_batches + now.step)

    def backward(self, images: list[StepImages], adversary: Adversary | None, now: Moment) -> Losses:
        """The losses, detached and summed over our shares, with the gradients of the whole batch's loss left
        in the parameters.
        """
        sums: Losses = {}
        self.optimizer.zero_grad(set_to_none=True)
        groups = self._groups(images)
        for group in groups:
            self._seed_dropout("step", now)
            is_last = group is groups[-1]
            with nullcontext() if is_last else self.worker.no_sync(self.wrapped):
                losses = self.loss(self.wrapped, group, adversary, now.progress)
                self._weighted(losses["loss"]).backward()  # type: ignore[no-untyped-call]
            for name, value in losses.items():
                sums[name] = sums[name] + value.detach() if name in sums else value.detach()
        return sums

    def _weighted(self, loss: Tensor) -> Tensor:
        """``loss`` of a share: the mean over the workers of their sums becomes the mean over all shares."""
        return loss if self._weight == 1 else loss * self._weight

    def _groups(self, images: list[StepImages]) -> list[list[StepImages]]:
        """Our shares as they go through the model."""
        return [images] if self._is_joined else [[own] for own in images]

    def _seed_dropout(self, purpose: str, now: Moment) -> None:
        """Seed what layers draw from by themselves, for the whole batch."""
        seed, device = derive_seed(self.recipe.seed, purpose, now.epoch, now.step, 0), self.worker.device
        # ``torch.manual_seed`` writes down its call stack where there is no GPU: slower than a small step.
        torch.default_generator.manual_seed(seed)
        if device.type == "cuda":
            with torch.cuda.device(device):
                torch.cuda.manual_seed(seed)

    def _descend(
        self, images: list[StepImages], adversary: Adversary | None, now: Moment, passes: Passes
    ) -> tuple[Losses, Passes]:
        self.train_mode()
        awp = None if adversary is None else adversary.awp_at(now.progress)
        if awp is None:
            losses = self.backward(images, adversary, now)
        else:
            ascents = self._ascents(images, adversary, now)
            with perturbed_weights(self.model, ascents, awp.gamma, self.worker):
                losses = self.backward(images, adversary, now)
        # AWP's authors update before they restore: the same but for weight decay, and not bit for bit.
        self.update(now)
        num_images = sum(
            len(part)
            for own in images
            for one in self.loss.passes([own], adversary)
            for task, part in one.images.items()
            if own.weight(task)
        )
        times = 1 if awp is None else 2
        return losses, passes + Passes(forward=times * num_images, backward=times * num_images)

    def _ascents(
        self, images: list[StepImages], adversary: Adversary | None, now: Moment
    ) -> list[Callable[[], Tensor]]:
        """The losses of our shares, as AWP raises them."""

        def ascent(group: list[StepImages]) -> Tensor:
            self._seed_dropout("ascent", now)
            return self._weighted(self.loss(self.model, group, adversary, now.progress)["loss"])

        return [partial(ascent, group) for group in self._groups(images)]
