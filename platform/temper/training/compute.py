"""The arithmetic of a run: chosen by the recipe, by the device, or by measurement."""

import copy
import itertools
import time
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F

from temper.host import use_gpu
from temper.models import TaskModel
from temper.recipe import Recipe
from temper.spec import Spec
from temper.training.plan import sees_whole_batch
from temper.training.worker import Worker

TIMED_STEPS = 5


class Compute(Spec):
    """The choice; it is kept with the run, so that a resumed run computes alike."""

    precision: str
    compile: bool
    channels_last: bool


def choose_compute(recipe: Recipe, model: TaskModel, worker: Worker) -> Compute:
    """Resolve what is ``auto``: precision by the device, the rest by timing a few steps.

    ``model`` is used for the timing and left as it was. All ranks follow the chief.
    """
    spec, data = recipe.compute, recipe.data
    precision = spec.precision
    if precision == "auto":
        has_bf16 = worker.device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
        precision = "bf16" if has_bf16 else "fp32"
    phases = recipe.schedule.plan(recipe.epochs, model.group_names)
    is_shared = any(sees_whole_batch(recipe, model, phase) for phase in phases)
    compiled = (False,) if is_shared else _options(spec.compile)
    choices = [
        Compute(precision=precision, compile=is_compiled, channels_last=is_last)
        for is_compiled, is_last in itertools.product(compiled, _options(spec.channels_last))
    ]
    if len(choices) == 1:
        return choices[0]
    share = -(-data.batch_size // recipe.workers.num_shares)
    times = [
        _time(choice, model, worker, share, data.image_size) if worker.is_chief else 0.0 for choice in choices
    ]
    # Only the chief has timed, so the sum over the ranks is its measurement.
    totals = worker.sum(torch.tensor(times, dtype=torch.float64)).tolist()
    return choices[totals.index(min(totals))]


def apply_compute(compute: Compute, model: TaskModel) -> None:
    """Apply the choice to ``model``."""
    model.is_bf16 = compute.precision == "bf16"
    use_gpu(uses_tf32=compute.precision == "tf32")
    model.memory_format = torch.channels_last if compute.channels_last else torch.contiguous_format
    model.to(memory_format=model.memory_format)
    if compute.compile:
        model.backbone.compile()


def _options(choice: Any) -> tuple[bool, ...]:
    return (False, True) if choice == "auto" else (bool(choice),)


def _time(choice: Compute, model: TaskModel, worker: Worker, batch_size: int, image_size: int) -> float:
    """Seconds of a few passes forward and back on a copy; infinite where the choice does not work."""
    trial = copy.deepcopy(model).train()
    generator = torch.Generator(worker.device).manual_seed(0)
    images = torch.rand(batch_size, 3, image_size, image_size, device=worker.device, generator=generator)
    labels = torch.zeros(batch_size, dtype=torch.int64, device=worker.device)
    try:
        apply_compute(choice, trial)
        step = _step(trial, images, labels)
        step()  # compiles, and warms up
        _synchronize(worker)
        started = time.perf_counter()
        for _ in range(TIMED_STEPS):
            step()
        _synchronize(worker)
        return time.perf_counter() - started
    except RuntimeError:  # no compiler here, or an operator that it does not know
        return float("inf")


def _step(model: TaskModel, images: torch.Tensor, labels: torch.Tensor) -> Callable[[], None]:
    def step() -> None:
        F.cross_entropy(model(images), labels).backward()  # type: ignore[no-untyped-call]

    return step


def _synchronize(worker: Worker) -> None:
    if worker.device.type == "cuda":
        torch.cuda.synchronize(worker.device)
