"""The story of a run: transfer a model to the target task, phase by phase, under attack."""

import time
from typing import Any

from temper.batches import Batch
from temper.errors import Interrupted
from temper.hardening import FreeTraining, Guard
from temper.host import use_cpu
from temper.models import TaskModel, build_model, set_trainable
from temper.recipe import Recipe
from temper.records import RunFolder
from temper.tracking import Tracker
from temper.training.anchor import Anchor
from temper.training.averaging import build_average
from temper.training.carried import Carried
from temper.training.compute import apply_compute, choose_compute
from temper.training.epoch import Tally, run_epoch
from temper.training.feed import Feed, paired_batches
from temper.training.free import FreeStep
from temper.training.guard import find_collapse, guard_of
from temper.training.later import ValidateNow, Validator
from temper.training.optimizer_state import load_optimizer
from temper.training.plan import PhasePlan, phase_of, plan_phases
from temper.training.progress import advance, fresh_state, reported
from temper.training.samples import build_sample_log
from temper.training.settle import close, finish_validation, settle
from temper.training.state import (
    Parts,
    TrainState,
    Waiting,
    digest_of,
    read_parts,
    restore,
    restore_model,
    save_checkpoint,
)
from temper.training.step import TrainStep
from temper.training.watch import Watch
from temper.training.worker import Wish, Worker

GO_ON = "the same command goes on from there"
BEFORE = "before."
"""Begins the names of parts that are as they were when the epoch began."""


def train(
    recipe: Recipe,
    run: RunFolder,
    feed: Feed,
    *,
    worker: Worker,
    tracker: Tracker,
    start_weights: str | None = None,
    validator: Validator | None = None,
) -> TrainState:
    """Train ``recipe`` on ``feed`` into ``run``; an interrupted run goes on where it was.

    ``start_weights`` replaces the recipe's ``model.weights`` (the pretrained start of this very recipe).
    Without ``validator`` epochs are validated in place. With one that answers later, the state that comes
    back may wait for answers still: ``TrainState.is_settled``.

    Raises:
        TrainingError: the loss stopped being finite.
        CheckpointError: ``run`` holds another run.
        Interrupted: the worker was told to stop; the run is saved.
    """
    use_cpu(recipe.workers.cpus_per_worker)
    return Training(recipe, run, feed, worker, tracker, start_weights, validator).finish()


class Training:
    """A run on its way: the model, what is kept of its start, and how far it is."""

    def __init__(
        self,
        recipe: Recipe,
        run: RunFolder,
        feed: Feed,
        worker: Worker,
        tracker: Tracker,
        start_weights: str | None,
        validator: Validator | None = None,
    ) -> None:
        self.recipe, self.run, self.feed = recipe, run, feed
        self.worker, self.tracker = worker, tracker
        self.validator = validator or ValidateNow()
        weights = start_weights or recipe.model.weights
        self.model = _start_model(recipe, feed, weights).to(worker.device)
        self.plans = plan_phases(recipe, self.model)
        self.anchor = Anchor.of(self.model, recipe, self.plans)
        self.average = build_average(self.model, recipe.optim.ema_decay)
        self.state = restore(run, fresh_state(recipe, feed, weights, worker))
        if self.state.compute is None:
            compute = choose_compute(
                recipe.compute,
                self.model,
                worker,
                batch_size=recipe.data.batch_size,
                image_size=recipe.data.image_size,
            )
            self.state = self.state.model_copy(update={"compute": compute})
        assert self.state.compute is not None
        apply_compute(self.state.compute, self.model)
        replays = getattr(recipe.objective.adversary, "replays", 1)
        self.model.controller.begin(recipe.epochs * feed.target.num_batches * replays)
        self._resumed = self._resume()
        self.watch = Watch(recipe.checkpoint, worker)
        self.samples = build_sample_log(recipe.tracking.samples, run, worker)
        begun = self.state.underway
        self.samples.begin(self.state.next_epoch, 0 if begun is None else begun.step)

    def finish(self) -> TrainState:
        """Every phase that is still to come, and the validations that have not been heard of."""
        for plan in self.plans:
            if plan.phase.end_epoch > self.state.next_epoch and not self.state.is_finished:
                self._train_phase(plan)
        self.model.replayed = None  # and the memory of its recordings is free
        if self.worker.is_chief and self.state.waiting:
            # No longer than training took: whoever validates may be waiting for our own CPU.
            self.validator.wait([one.epoch for one in self.state.waiting], self.state.train_s)
            self.state = finish_validation(self.recipe, self.run, self.state, self.tracker)
        return self.state

    def _resume(self) -> Parts:
        """Take up the weights of ``last/``, see that they were trained as the recipe says, and return what
        else is there.
        """
        restore_model(self.run, self.state, self.model)
        if not self.state.has_begun:
            return {}
        parts = read_parts(self.run, self.state)
        if "average" in parts:
            self.average.load_state_dict(parts.pop("average"))
        if "adapter" in parts:
            self.model.controller.load_state_dict(parts.pop("adapter"))
        if self.state.next_epoch > 0:
            names = phase_of(self.plans, self.state.next_epoch - 1).names
            assert self.state.trainable == digest_of(names), "the trainable set must follow from the epoch"
        return parts

    def _train_phase(self, plan: PhasePlan) -> None:
        """The epochs of ``plan`` still to come: one trainable set, one optimizer, one DDP wrapper."""
        trainable = set_trainable(self.model, plan.phase.trainable, self.recipe.objective.trained_heads)
        assert {n for n, p in self.model.named_parameters() if p.requires_grad} == set(plan.names)
        optimizer = self.recipe.optim.build(trainable, plan.lr_factors)
        if self.state.next_epoch > plan.phase.start_epoch or self.state.underway is not None:
            load_optimizer(optimizer, plan.names, self._resumed.get("optimizer", {}))
        adversary = self.recipe.objective.adversary
        kind = FreeStep if plan.is_attacked and isinstance(adversary, FreeTraining) else TrainStep
        step = kind(
            self.recipe, self.feed, plan, self.model, optimizer, self.worker, self.anchor, self.average
        )
        carried = Carried(self.model, optimizer, plan.names, self.average)
        for epoch in range(max(plan.phase.start_epoch, self.state.next_epoch), plan.phase.end_epoch):
            self._train_epoch(plan, step, carried, epoch)
            if self.state.is_finished:
                return
            if self.watch.meet() is Wish.STOP:
                raise Interrupted(f"{self.run.path}: stopped after epoch {epoch + 1}; {GO_ON}")

    def _train_epoch(self, plan: PhasePlan, step: TrainStep, carried: Carried, epoch: int) -> None:
        started = time.perf_counter()
        guard = guard_of(self.recipe.objective.adversary) if plan.is_attacked else None
        before = self._take_up(guard, step, carried, epoch)
        begun, before_s = self.state.underway, 0.0
        if begun is not None:
            before_s = begun.seconds

        def after_step(tally: Tally, batches: dict[str, Batch]) -> None:
            self.samples.note(epoch, tally.num_steps - 1, batches, step.shares)
            if tally.num_steps < self.feed.target.num_batches:
                self._look_up(step, carried, before, tally, before_s + time.perf_counter() - started)

        metrics, passes = run_epoch(step, epoch, begun, after_step)
        collapse, is_waiting = None, False
        if guard is not None:
            metrics["train/guarded_acc"] = step.guarded_accuracy(guard, epoch)
            collapse = find_collapse(guard, self.state.guarded_acc, metrics["train/guarded_acc"], epoch)
        if collapse is not None:
            carried.load(before)
            self.samples.discard(epoch)
        elif (epoch + 1) % self.recipe.validation.every_epochs == 0 or epoch + 1 == self.recipe.epochs:
            answer = self.validator.validate(self.recipe, self.average.model, self.feed, self.worker, epoch)
            metrics, is_waiting = metrics | (answer or {}), answer is None
        seconds = before_s + time.perf_counter() - started
        self.state = advance(self.recipe, self.state, plan, epoch, metrics, passes, seconds, collapse)
        self._note(epoch, metrics, is_waiting)
        if self.worker.is_chief:
            self.state, answers = settle(self.recipe, self.run, self.state)
            save_checkpoint(self.run, self.state, self.average.model, carried.parts())
            self.tracker.log(metrics | {"cost/train_s": self.state.train_s}, epoch=epoch)
            close(self.run, answers, self.tracker)
        self.watch.saved()
        self.worker.barrier()
        self.worker.report(reported(self.state, metrics, epoch))

    def _take_up(self, guard: Guard | None, step: TrainStep, carried: Carried, epoch: int) -> Parts:
        """What a guard may have to go back to; with what an epoch that was begun before has left of it."""
        parts, self._resumed = self._resumed, {}
        if self.state.underway is None:
            return {} if guard is None else carried.copy()
        step.load_state(parts.get("step", {}))
        if guard is None:
            return {}
        first = next(iter(paired_batches(self.feed, epoch, self.recipe.objective.uses_source)))
        step.first_images = step.prepare(first, epoch, 0)
        return {
            name.removeprefix(BEFORE): tensors for name, tensors in parts.items() if name.startswith(BEFORE)
        }

    def _look_up(
        self, step: TrainStep, carried: Carried, before: Parts, tally: Tally, seconds: float
    ) -> None:
        """Save within an epoch if it is time, or somebody wishes it.

        Raises:
            Interrupted: somebody wishes to stop.
        """
        wish = self.watch.after_step(tally.num_steps)
        if wish is Wish.GO_ON:
            return
        underway, own = tally.underway(self.worker, seconds), step.state()
        self.state = self.state.model_copy(update={"underway": underway})
        if self.worker.is_chief:
            kept = {f"{BEFORE}{name}": tensors for name, tensors in before.items()}
            parts = {**carried.parts(), "step": own, **kept}
            save_checkpoint(self.run, self.state, self.average.model, parts)
        self.watch.saved()
        if wish is Wish.STOP:
            self.worker.barrier()
            where = f"step {tally.num_steps} of epoch {tally.epoch + 1}"
            raise Interrupted(f"{self.run.path}: stopped after {where}; {GO_ON}")

    def _note(self, epoch: int, metrics: dict[str, float], is_waiting: bool) -> None:
        """What the state keeps of an epoch that is the best, or may turn out to be."""
        update: dict[str, Any] = {}
        if self.state.best_epoch == epoch:
            update["adapter_ranks"] = self.model.controller.ranks()
        if is_waiting:
            ranks = self.model.controller.ranks()
            one = Waiting(epoch=epoch, metrics=metrics, adapter_ranks=ranks)
            update["waiting"] = [*self.state.waiting, one]
        self.state = self.state.model_copy(update=update)


def _start_model(recipe: Recipe, feed: Feed, weights: str | None) -> TaskModel:
    spec = recipe.model.model_copy(update={"weights": weights})
    return build_model(spec, feed.classes, image_size=recipe.data.image_size, seed=recipe.seed)
