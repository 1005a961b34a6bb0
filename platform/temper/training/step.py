"""One optimizer step: augment, attack, descend."""

from functools import partial

import torch
from torch import Tensor, nn

from temper.data import Batch, mix
from temper.hardening import AWP, Adversary, Guard
from temper.models import TaskModel, train_modes
from temper.recipe import Recipe
from temper.seeds import derive_seed
from temper.training.adversaries import attack_tasks
from temper.training.anchor import Anchor
from temper.training.averaging import NoAverage
from temper.training.features import FeatureCache
from temper.training.feed import Feed, to_device
from temper.training.guard import guarded_accuracy
from temper.training.losses import Losses, StepImages, StepLoss
from temper.training.perturbation import perturbed_weights
from temper.training.plan import PhasePlan
from temper.training.state import Passes
from temper.training.worker import Worker


class TrainStep:
    """The steps of one phase."""

    def __init__(
        self,
        recipe: Recipe,
        feed: Feed,
        plan: PhasePlan,
        model: TaskModel,
        optimizer: torch.optim.Optimizer,
        worker: Worker,
        anchor: Anchor | None = None,
        average: NoAverage | None = None,
    ) -> None:
        self.recipe, self.feed, self.plan, self.model = recipe, feed, plan, model
        self.optimizer, self.worker, self._average = optimizer, worker, average
        self.wrapped: nn.Module = worker.wrap(model)
        weights = recipe.objective.target_class_weights(feed.class_counts)
        class_weights = None if weights is None else weights.to(worker.device)
        self.loss = StepLoss(recipe.objective, plan.phase, model, anchor or Anchor(), class_weights)
        # Found once: looking for what is frozen takes longer than a step on cached features.
        self._modes = train_modes(model, freeze_batch_norm=plan.phase.batch_norm == "frozen")
        self.first_images: StepImages | None = None
        """What the first step of the latest epoch saw, before any attack."""
        self._features = FeatureCache(model, worker.device) if plan.caches_features else None

    def __call__(
        self, batches: dict[str, Batch], epoch: int, step: int, progress: float
    ) -> tuple[Losses, Passes]:
        """Losses as scalars on the device, not yet waited for, and the passes that the step took."""
        images = self.prepare(batches, epoch, step)
        if step == 0:
            self.first_images = images
        adversary = self.adversary(progress)
        passes = Passes()
        if adversary is not None:
            self.train_mode()  # which the attack looks at where it uses batch statistics
            attacked, passes = attack_tasks(
                self.model, adversary, images.clean, images.labels, self._seed("attack", epoch, step)
            )
            images = StepImages(images.clean, images.labels, attacked)
        return self._descend(images, adversary, epoch, step, progress, passes)

    def forget_features(self) -> None:
        """From now on the frozen body runs again in every step."""
        self._features = None

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
        assert self.first_images is not None
        seed = derive_seed(self.recipe.seed, "guard", epoch)
        return guarded_accuracy(self.model, adversary, guard, self.first_images, self.worker, seed)

    def train_mode(self) -> None:
        """The model as the phase updates it."""
        for module, mode in self._modes:
            if module.training != mode:
                module.training = mode

    def update(self, epoch: int, step: int, progress: float) -> None:
        """One step of the optimizer at the rate of ``progress``, with what adapters do after it."""
        optim = self.recipe.optim
        for group in self.optimizer.param_groups:
            group["lr"] = optim.lr_at(progress) * group["lr_factor"]
        if optim.max_grad_norm is not None:
            parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
            torch.nn.utils.clip_grad_norm_(parameters, optim.max_grad_norm)
        self.optimizer.step()
        if self._average is not None:
            self._average.update()
        self.model.controller.after_step(epoch * self.feed.target.num_batches + step)

    def prepare(self, batches: dict[str, Batch], epoch: int, step: int) -> StepImages:
        """The images on the device, augmented and mixed; or the features of images that never change."""
        device, data = self.worker.device, self.recipe.data
        if self._features is not None:
            labels = {task: batch.labels.to(device) for task, batch in batches.items()}
            return StepImages(self._features.of(batches), labels, {}, are_features=True)
        images: dict[str, Tensor] = {}
        labels = {}
        for task, batch in batches.items():
            seed = self._seed("augment", epoch, step)
            images[task], labels[task] = to_device(batch, data.augment, device, seed)
        if data.mixing is not None:
            images["target"], labels["target"] = mix(
                images["target"],
                labels["target"],
                data.mixing,
                len(self.feed.classes["target"]),
                self._seed("mix", epoch, step),
            )
        return StepImages(images, labels, {})

    def backward(self, images: StepImages, adversary: Adversary | None, progress: float) -> Losses:
        """The losses, detached, with their gradients in the parameters."""
        losses = self.loss(self.wrapped, images, adversary, progress)
        self.optimizer.zero_grad(set_to_none=True)
        losses["loss"].backward()  # type: ignore[no-untyped-call]
        return {name: value.detach() for name, value in losses.items()}

    def _seed(self, purpose: str, epoch: int, step: int) -> int:
        return derive_seed(self.recipe.seed, purpose, epoch, step, self.worker.rank)

    def _descend(
        self,
        images: StepImages,
        adversary: Adversary | None,
        epoch: int,
        step: int,
        progress: float,
        passes: Passes,
    ) -> tuple[Losses, Passes]:
        self.train_mode()
        awp = self._awp(adversary, progress)
        if awp is None:
            losses = self.backward(images, adversary, progress)
        else:
            ascent = partial(self._ascent_loss, images, adversary, progress)
            with perturbed_weights(self.model, ascent, awp.gamma, self.worker):
                losses = self.backward(images, adversary, progress)
        # AWP's authors update before they restore: the same but for weight decay, and not bit for bit.
        self.update(epoch, step, progress)
        num_images = sum(
            len(part) for one in self.loss.passes(images, adversary) for part in one.images.values()
        )
        times = 0 if images.are_features else 1 if awp is None else 2
        return losses, passes + Passes(forward=times * num_images, backward=times * num_images)

    def _ascent_loss(self, images: StepImages, adversary: Adversary | None, progress: float) -> Tensor:
        return self.loss(self.model, images, adversary, progress)["loss"]

    def _awp(self, adversary: Adversary | None, progress: float) -> AWP | None:
        awp: AWP | None = getattr(adversary, "awp", None)
        return awp if awp is not None and progress >= awp.start_frac else None
