"""The story of a run: transfer a model to the target task, phase by phase, under attack."""

import time

from temper.batches import Batch
from temper.errors import Interrupted
from temper.hardening import FreeTraining, Guard
from temper.host import use_cpu
from temper.models import set_trainable
from temper.recipe import Recipe
from temper.records import RunFolder
from temper.tracking import Tracker
from temper.training import deferred_validation as deferred
from temper.training.averaging import build_average
from temper.training.candidate import Origin, build_start_model, keep_head, keep_probe
from temper.training.checkpoint_policy import CheckpointTrigger
from temper.training.data import TrainData, paired_batches
from temper.training.epoch import Tally, run_epoch
from temper.training.free import FreeStep
from temper.training.guard import Collapse, find_collapse, guard_of
from temper.training.optimizer_state import load_optimizer
from temper.training.plan import PhasePlan, plan_phases
from temper.training.probe import Probe, head_of, solve_heads
from temper.training.progress import advance, fresh_state, noted, reported, with_compute
from temper.training.range_test import measure_rate
from temper.training.rate import UNMEASURED
from temper.training.samples import build_sample_log
from temper.training.saving import Parts, restore, save_checkpoint
from temper.training.start_model import StartModel
from temper.training.state import Passes, TrainState
from temper.training.step import TrainStep
from temper.training.step_state import StepState, take_up
from temper.training.validation import validate_epoch
from temper.training.worker import Action, Worker

GO_ON = "run the same command again to resume"
BEFORE = "before."
"""Begins the names of parts that are as they were when the epoch began."""


def train(
    recipe: Recipe,
    run: RunFolder,
    feed: TrainData,
    *,
    worker: Worker,
    tracker: Tracker,
    origin: Origin | None = None,
    validator: deferred.Validator | None = None,
) -> TrainState:
    """Train ``recipe`` on ``feed`` into ``run``; an interrupted run resumes.

    Without ``validator`` epochs are validated in place. With one that answers later, the returned state may
    still have outstanding validations: ``TrainState.is_settled``.

    Raises:
        DivergenceError: the loss or the weights stopped being finite.
        CheckpointError: ``run`` holds another run, or the probe is not there.
        Interrupted: the worker was told to stop; the run is saved.
    """
    use_cpu(recipe.workers.cpus_per_worker)
    return Training(recipe, run, feed, worker, tracker, origin, validator).finish()


class Training:
    """A run in progress: the model, what is kept of its start, and its position."""

    def __init__(
        self,
        recipe: Recipe,
        run: RunFolder,
        feed: TrainData,
        worker: Worker,
        tracker: Tracker,
        origin: Origin | None = None,
        validator: deferred.Validator | None = None,
    ) -> None:
        self.recipe, self.run, self.feed = recipe, run, feed
        self.worker, self.tracker = worker, tracker
        self.validator = validator or deferred.ImmediateValidation()
        origin = origin or Origin()
        weights = origin.weights or recipe.model.weights
        self.probe = None if origin.probe is None else Probe.of(origin.probe)
        self.model = build_start_model(recipe, feed, weights, self.probe).to(worker.device)
        self.plans = plan_phases(recipe, self.model)
        self.start = StartModel.of(self.model, recipe, self.plans)
        num_steps = self.plans[0].num_stepped * feed.target.num_batches
        self.average = build_average(self.model, recipe.optim.ema_decay_of(num_steps))
        state = restore(run, fresh_state(recipe, feed, weights, worker))
        self.state = with_compute(state, recipe, self.model, worker)
        self.model.controller.begin(num_steps * recipe.objective.updates_per_batch)
        self._resumed = take_up(run, self.state, self.plans, self.model, self.average)
        self.trigger = CheckpointTrigger(recipe.checkpoint, worker)
        self.samples = build_sample_log(recipe.tracking.samples, run, worker)
        begun = self.state.underway
        self.samples.begin(self.state.next_epoch, 0 if begun is None else begun.step)

    def finish(self) -> TrainState:
        """Train the remaining phases, and collect the outstanding validations."""
        if self.probe is not None and not self.state.has_begun:
            self.state = keep_probe(self.run, self.state, self.probe, self.model, self.worker)
        for plan in self.plans:
            if plan.phase.end_epoch > self.state.next_epoch and not self.state.is_finished:
                self._train_phase(plan)
        self.model.replayed = None  # and the memory of its recordings is free
        if self.worker.is_chief and self.state.waiting:
            # No longer than training took: whoever validates may be waiting for our own CPU.
            self.validator.wait([one.epoch for one in self.state.waiting], self.state.train_s)
            self.state = deferred.finish_validation(self.recipe, self.run, self.state, self.tracker)
        return self.state

    def _train_phase(self, plan: PhasePlan) -> None:
        """The epochs of ``plan`` still to come: one trainable set, one optimizer, one DDP wrapper."""
        trainable = set_trainable(self.model, plan.phase.trainable, self.recipe.objective.trained_heads)
        assert {n for n, p in self.model.named_parameters() if p.requires_grad} == set(plan.names)
        self.recipe, self.state = measure_rate(
            self.recipe, self.state, self.feed, plan, self.model, self.worker
        )
        optimizer = self.recipe.optim.measured(UNMEASURED).build(trainable, plan.lr_factors)
        if self.state.next_epoch > plan.phase.start_epoch or self.state.underway is not None:
            load_optimizer(optimizer, plan.names, self._resumed.get("optimizer", {}))
        step_state = StepState(self.model, optimizer, plan.names, self.average)
        if plan.is_solved:
            self._solve_head(plan, step_state)
            return
        adversary = self.recipe.objective.adversary
        kind = FreeStep if plan.is_attacked and isinstance(adversary, FreeTraining) else TrainStep
        step = kind(
            self.recipe, self.feed, plan, self.model, optimizer, self.worker, self.start, self.average
        )
        for epoch in range(max(plan.phase.start_epoch, self.state.next_epoch), plan.phase.end_epoch):
            self._train_epoch(plan, step, step_state, epoch)
            if self.state.is_finished:
                return

    def _solve_head(self, plan: PhasePlan, step_state: StepState) -> None:
        """Put the head at its optimum: the whole phase, in an epoch without a step."""
        started, epoch = time.perf_counter(), max(plan.phase.start_epoch, self.state.next_epoch)
        known = self.probe if epoch == 0 else None
        solved = solve_heads(self.recipe, self.model, self.feed, self.worker, known)
        self.average.restart()
        if known is not None and self.feed.source is None:
            metrics = known.metrics | solved.metrics
        else:
            validated = validate_epoch(self.recipe, self.average.model, self.feed, self.worker)
            metrics = solved.metrics | validated
        if epoch == 0 and known is None:
            if self.worker.is_chief:
                keep_head(self.run, self.state, head_of(self.model))
            self.state = self.state.model_copy(update={"probe_metrics": metrics})
        self._end_epoch(plan, step_state, epoch, metrics, solved.passes, time.perf_counter() - started)

    def _train_epoch(self, plan: PhasePlan, step: TrainStep, step_state: StepState, epoch: int) -> None:
        started = time.perf_counter()
        guard = guard_of(self.recipe.objective.adversary) if plan.is_attacked else None
        before = self._resume_epoch(guard, step, step_state, epoch)
        begun = self.state.underway
        before_s = 0.0 if begun is None else begun.seconds

        def after_step(tally: Tally, batches: dict[str, Batch]) -> None:
            self.samples.note(epoch, tally.num_steps - 1, batches, step.shares)
            if tally.num_steps < self.feed.target.num_batches:
                self._save_within(step, step_state, before, tally, before_s + time.perf_counter() - started)

        metrics, passes = run_epoch(step, epoch, begun, after_step)
        collapse, is_waiting = None, False
        if guard is not None:
            metrics["train/guarded_acc"] = step.guarded_accuracy(guard, epoch)
            collapse = find_collapse(guard, self.state.guarded_acc, metrics["train/guarded_acc"], epoch)
        if collapse is not None:
            step_state.load(before)
            self.samples.discard(epoch)
        elif (epoch + 1) % self.recipe.validation.every_epochs == 0 or epoch + 1 == self.recipe.epochs:
            answer = self.validator.validate(self.recipe, self.average.model, self.feed, self.worker, epoch)
            metrics, is_waiting = metrics | (answer or {}), answer is None
        seconds = before_s + time.perf_counter() - started
        self._end_epoch(plan, step_state, epoch, metrics, passes, seconds, collapse, is_waiting)

    def _end_epoch(
        self,
        plan: PhasePlan,
        step_state: StepState,
        epoch: int,
        metrics: dict[str, float],
        passes: Passes,
        seconds: float,
        collapse: Collapse | None = None,
        is_waiting: bool = False,
    ) -> None:
        """Save and report an epoch.

        Raises:
            Interrupted: somebody wishes to stop.
        """
        self.state = advance(self.recipe, self.state, plan, epoch, metrics, passes, seconds, collapse)
        self.state = noted(self.state, epoch, metrics, self.model.controller.ranks(), is_waiting)
        if self.worker.is_chief:
            self.state, answers = deferred.settle(self.recipe, self.run, self.state)
            best = self.average.model if self.state.best_epoch == epoch else None
            self.state = save_checkpoint(self.run, self.state, step_state.parts(), best)
            self.tracker.log(metrics | {"cost/train_s": self.state.train_s}, epoch=epoch)
            deferred.close(self.run, answers, self.tracker)
        self.trigger.saved()
        self.worker.barrier()
        self.worker.report(reported(self.state, metrics, epoch))
        if not self.state.is_finished and self.trigger.sync() is Action.STOP:
            raise Interrupted(f"{self.run.path}: stopped after epoch {epoch + 1}; {GO_ON}")

    def _resume_epoch(self, guard: Guard | None, step: TrainStep, step_state: StepState, epoch: int) -> Parts:
        """What a guard may have to go back to; with what an epoch that was begun before has left of it."""
        parts, self._resumed = self._resumed, {}
        if self.state.underway is None:
            return {} if guard is None else step_state.copy()
        step.load_state(parts.get("step", {}))
        if guard is None:
            return {}
        first = next(iter(paired_batches(self.feed, epoch, self.recipe.objective.uses_source)))
        step.first_images = step.prepare(first, epoch, 0)
        return {
            name.removeprefix(BEFORE): tensors for name, tensors in parts.items() if name.startswith(BEFORE)
        }

    def _save_within(
        self, step: TrainStep, step_state: StepState, before: Parts, tally: Tally, seconds: float
    ) -> None:
        """Save within an epoch if it is time, or somebody wishes it.

        Raises:
            Interrupted: somebody wishes to stop.
        """
        action = self.trigger.after_step(tally.num_steps)
        if action is Action.CONTINUE:
            return
        underway, own = tally.underway(self.worker, seconds), step.state()
        self.state = self.state.model_copy(update={"underway": underway})
        if self.worker.is_chief:
            kept = {f"{BEFORE}{name}": tensors for name, tensors in before.items()}
            parts = {**step_state.parts(), "step": own, **kept}
            save_checkpoint(self.run, self.state, parts)
        self.trigger.saved()
        if action is Action.STOP:
            self.worker.barrier()
            where = f"step {tally.num_steps} of epoch {tally.epoch + 1}"
            raise Interrupted(f"{self.run.path}: stopped after {where}; {GO_ON}")
