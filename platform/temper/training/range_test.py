"""The learning rate by measurement: a range test on the run's own batches."""

import copy
import itertools
import math
import time
from collections.abc import Iterator
from dataclasses import replace

import torch

from temper.batches import Batch
from temper.models import TaskModel, set_trainable
from temper.optim import OptimSpec
from temper.recipe import Recipe
from temper.training.data import TrainData, paired_batches
from temper.training.plan import Moment, PhasePlan
from temper.training.rate import UNMEASURED, RateTest, limit_of
from temper.training.start_model import StartModel
from temper.training.state import Passes, TrainState
from temper.training.step import TrainStep
from temper.training.worker import Worker

BUDGET = 0.1
"""Share of the run's steps that the test may take at most."""
MIN_STEPS, MAX_STEPS = 20, 40
RANGE = {"adamw": (1e-5, 3e-2), "sgd": (1e-4, 1.0)}
"""Rates that are tried, on a geometric scale."""
SMOOTHING = 0.7
"""Of the loss: share of the former mean."""
FRACTION = 0.25
"""The rate to train at, as a share of that at which a cold start forgets what it knew."""
ATTACKED_FRACTION = 0.4
"""The same under attack: such runs are longer, and what they start from is to be forgotten (docs/log.md)."""


def measure_rate(
    recipe: Recipe, state: TrainState, feed: TrainData, plan: PhasePlan, model: TaskModel, worker: Worker
) -> tuple[Recipe, TrainState]:
    """``recipe`` with a number instead of ``optim.lr: auto``, measured once, before the first step.

    The state keeps what was measured and counts what it took.
    """
    if recipe.optim.lr != "auto" or plan.is_solved:
        return recipe, state
    rate = state.rate
    if rate is None:
        started = time.perf_counter()
        rate, passes = find_lr(recipe, feed, plan, model, worker)
        seconds = state.train_s + time.perf_counter() - started
        state = state.model_copy(update={"rate": rate, "passes": state.passes + passes, "train_s": seconds})
    return recipe.model_copy(update={"optim": recipe.optim.measured(rate.lr)}), state


def find_lr(
    recipe: Recipe, feed: TrainData, plan: PhasePlan, model: TaskModel, worker: Worker
) -> tuple[RateTest, Passes]:
    """Choose the rate of ``plan``, a phase of ``recipe``, for ``model``, which stays as it is.

    A copy trains on clean batches at rates that rise geometrically (Smith 2017, arXiv:1506.01186) until its
    loss rises for good by half of that of guessing, ln(number of classes): there it forgets what it knew. The
    rate is a fixed share of that. It takes at most a tenth of the run's steps, whose passes are counted; the
    same seed gives the same rate.
    """
    optim = recipe.optim
    num_steps = min(MAX_STEPS, int(BUDGET * plan.num_stepped * feed.target.num_batches))
    if num_steps < MIN_STEPS:
        return RateTest(lr=UNMEASURED, limit=None), Passes()
    low, high = RANGE[optim.kind]
    rates = [low * (high / low) ** (step / (num_steps - 1)) for step in range(num_steps)]
    losses, passes = _smoothed_losses(recipe, feed, plan, model, worker, rates)
    limit = limit_of(rates, losses, len(feed.classes["target"]))
    fraction = ATTACKED_FRACTION if plan.is_attacked else FRACTION
    lr = float(f"{fraction * (limit or high):.2g}")
    return RateTest(lr=lr, limit=limit, rates=rates[: len(losses)], losses=losses), passes


def _smoothed_losses(
    recipe: Recipe, feed: TrainData, plan: PhasePlan, model: TaskModel, worker: Worker, rates: list[float]
) -> tuple[list[float], Passes]:
    """The smoothed target loss of a copy of ``model`` before it trains at each of ``rates`` in turn.

    It ends early where the loss is hopeless.
    """
    clean = replace(plan, is_attacked=False)
    trial = copy.deepcopy(model)
    trainable = set_trainable(trial, plan.phase.trainable, recipe.objective.trained_heads)
    optimizer = _at(recipe.optim, rates[0]).build(trainable, plan.lr_factors)
    step = TrainStep(recipe, feed, clean, trial, optimizer, worker, StartModel.of(trial, recipe, [clean]))
    smoothed: list[float] = []
    mean, weight, passes = 0.0, 0.0, Passes()
    hopeless = 4 * math.log(len(feed.classes["target"])) + 4
    for number, (rate, batches) in enumerate(zip(rates, _batches(feed, recipe), strict=False)):
        step.recipe = recipe.model_copy(update={"optim": _at(recipe.optim, rate)})
        losses, cost = step(batches, Moment(0, number, 0.0))
        passes += cost
        loss = float(worker.sum(losses["target/loss"].double())) / feed.num_shares
        mean, weight = SMOOTHING * mean + (1 - SMOOTHING) * loss, SMOOTHING * weight + (1 - SMOOTHING)
        smoothed.append(mean / weight)
        if not smoothed[-1] < hopeless:
            break
    totals = worker.sum(torch.tensor([passes.forward, passes.backward], dtype=torch.float64)).tolist()
    return smoothed, Passes(forward=round(totals[0]), backward=round(totals[1]))


def _at(optim: OptimSpec, rate: float) -> OptimSpec:
    return optim.model_copy(
        update={"lr": rate, "lr_schedule": "constant", "warmup_frac": 0.0, "ema_decay": None}
    )


def _batches(feed: TrainData, recipe: Recipe) -> Iterator[dict[str, Batch]]:
    """Those of the first epochs, one after the other."""
    for epoch in itertools.count():
        yield from paired_batches(feed, epoch, recipe.objective.uses_source)
