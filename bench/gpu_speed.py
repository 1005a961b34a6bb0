"""An epoch of CIFAR-10's size on a GPU, against the time that its arithmetic takes at the card's full speed.

PreActResNet-18 under PGD-10 in bf16, as most papers on adversarial training at 32 px have it: for each of
50,000 images ten passes forward and back to the image, and one forward and back to all weights. The floor is
the number of floating-point operations, as PyTorch counts them, divided by the rate of a large product of
bf16 matrices on the same card in the same run. Speed does not depend on what the images show, so they are
noise. A bare loop is measured beside it.
"""

import time
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from row import Row, Skipped
from temper import host
from temper.attacks import attack_mode
from temper.batches import ResidentBatches
from temper.data import Images
from temper.models import build_model, set_trainable
from temper.recipe import Recipe
from temper.training import TrainData, Worker, plan_phases
from temper.training.compute import apply_compute, choose_compute
from temper.training.epoch import run_epoch
from temper.training.plan import Moment
from temper.training.step import TrainStep
from training_steps import EPS, STEP_SIZE, STEPS, pgd

NUM_IMAGES, SIZE, CLASSES = 50_000, 32, [str(number) for number in range(10)]
BATCH_SIZES = (128, 256, 512, 1024)
FIRST_STEPS = 3
"""Before the clock starts: what is compiled or recorded is so by then."""
BARE_STEPS = 40
"""Of a bare loop, all of them alike."""
SIDE, PRODUCTS = 8192, 30
"""Of the matrices, and how many products are timed."""


def rows(_folder: Path) -> Iterator[Row | Skipped]:
    """One for each batch size, compiled and not; what is left without an attack; and a bare loop."""
    if not torch.cuda.is_available():
        yield Skipped("all rows", "needs a GPU")
        return
    host.use_gpu()
    named = {size: f"epoch under PGD-{STEPS}: PreActResNet-18, bf16, batch {size}" for size in BATCH_SIZES}
    for is_compiled in (True, False):
        for batch_size, name in named.items():
            epoch = Epoch(batch_size, pgd(), compile=is_compiled)
            of = f"{name}, compiled" if is_compiled else name
            yield Row(of, "FLOP floor", "s", "<= 4", epoch, floor_s, rounds=2, warm_ups=0)
    for batch_size in (BATCH_SIZES[-1], BATCH_SIZES[0]):
        name, epoch = named[batch_size], Epoch(batch_size, pgd())
        clean = name.replace(f"under PGD-{STEPS}", "clean")
        yield Row(clean, "under PGD", "s", "<= 0.3", Epoch(batch_size, None), epoch, rounds=1, warm_ups=0)
        yield Row(name, "a bare loop", "s", "<= 1.05", epoch, BareLoop(batch_size), rounds=1, warm_ups=0)


class Epoch:
    """Our loop from decoded images in memory: batches, augmentation, attack, update."""

    def __init__(self, batch_size: int, adversary: dict[str, Any] | None, **compute: Any) -> None:
        device = torch.device("cuda")
        recipe = recipe_of(batch_size, adversary, compute)
        feed = feed_of(batch_size)
        model = build_model(recipe.model, feed.classes, image_size=SIZE, seed=0).to(device)
        worker = Worker(device)
        chosen = choose_compute(recipe, model, worker)
        apply_compute(chosen, model)
        plan = plan_phases(recipe, model)[0]
        optimizer = recipe.optim.build(set_trainable(model, plan.phase.trainable, ("target",)))
        self.step = TrainStep(recipe, feed, plan, model, optimizer, worker)
        sizes = {len(batch.labels): batch for batch in feed.target.epoch(0)}  # the last one is smaller
        for number in range(FIRST_STEPS):
            for batch in sizes.values():
                self.step({"target": batch}, Moment(0, number, 0.0))

    def __call__(self) -> float:
        """Seconds, whole."""
        return seconds_of(lambda: run_epoch(self.step, 0))


class BareLoop:
    """By hand, as well as one knows: images on the card, autocast, channels_last, frozen weights."""

    def __init__(self, batch_size: int) -> None:
        recipe = recipe_of(batch_size, None, {})
        classes = {"target": CLASSES}
        model = build_model(recipe.model, classes, image_size=SIZE, seed=0)
        self._model = model.cuda().to(memory_format=torch.channels_last)
        self._optimizer = torch.optim.SGD(
            model.parameters(), lr=0.05, momentum=0.9, weight_decay=5e-4, fused=True
        )
        images = images_of()
        self._images, self._labels = (
            torch.from_numpy(images.images).cuda(),
            torch.from_numpy(images.labels).cuda(),
        )
        self._batch_size = batch_size
        self._step(torch.arange(batch_size, device="cuda"))

    def __call__(self) -> float:
        """Seconds, from a part of the steps."""
        return seconds_of(self._steps) * NUM_IMAGES / (BARE_STEPS * self._batch_size)

    def _steps(self) -> None:
        order = torch.randperm(NUM_IMAGES, device="cuda")
        for rows in order.split(self._batch_size)[:BARE_STEPS]:
            self._step(rows)

    def _step(self, rows: Tensor) -> None:
        images, labels = self._images[rows].float() / 255, self._labels[rows]
        self._model.eval().requires_grad_(False)
        found = self._attacked(images, labels)
        self._model.train().requires_grad_(True)
        self._optimizer.zero_grad()
        self._loss(found, labels).backward()  # type: ignore[no-untyped-call]
        self._optimizer.step()

    def _attacked(self, images: Tensor, labels: Tensor) -> Tensor:
        found = (images + torch.empty_like(images).uniform_(-EPS, EPS)).clamp(0, 1)
        for _ in range(STEPS):
            found.requires_grad_(True)
            (gradient,) = torch.autograd.grad(self._loss(found, labels), found)
            moved = found.detach() + STEP_SIZE * gradient.sign()
            found = torch.clamp(images + (moved - images).clamp(-EPS, EPS), 0, 1)
        return found

    def _loss(self, images: Tensor, labels: Tensor) -> Tensor:
        with torch.autocast("cuda", torch.bfloat16):
            return F.cross_entropy(self._model(images), labels)


@cache
def floor_s() -> float:
    """Seconds of an epoch's arithmetic at the rate of a product of matrices."""
    return flops_of_epoch() / flops_per_s()


def flops_of_epoch() -> float:
    """Counted on two images: a step of training, and a pass forward and to the image for each step of PGD."""
    recipe = recipe_of(2, None, {})
    model = build_model(recipe.model, {"target": CLASSES}, image_size=SIZE, seed=0).cuda().eval()
    image = torch.rand(2, 3, SIZE, SIZE, device="cuda", requires_grad=True)
    with FlopCounterMode(display=False) as step:
        model(image.detach()).sum().backward()
    with attack_mode(model), FlopCounterMode(display=False) as gradient:
        model(image).sum().backward()
    return (step.get_total_flops() + STEPS * gradient.get_total_flops()) / 2 * NUM_IMAGES


def flops_per_s() -> float:
    """The best of a few series of products of random bf16 matrices."""
    a, b = (torch.randn(SIDE, SIDE, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    best = min(seconds_of(lambda: [a @ b for _ in range(PRODUCTS)]) for _ in range(4))
    return 2 * SIDE**3 * PRODUCTS / best


def seconds_of(work: Callable[[], object]) -> float:
    """By the clock, with the card idle before and after."""
    torch.cuda.synchronize()
    started = time.perf_counter()
    work()
    torch.cuda.synchronize()
    return time.perf_counter() - started


def recipe_of(batch_size: int, adversary: dict[str, Any] | None, compute: dict[str, Any]) -> Recipe:
    """One task, everything trains, with the usual augmentation."""
    return Recipe.model_validate(
        {
            "name": "bench", "epochs": 1, "threat": {"norm": "linf", "eps": EPS},
            "data": {"target": "nowhere", "image_size": SIZE, "batch_size": batch_size},
            "model": {"backbone": "preact_resnet18"}, "compute": compute,
            "objective": {"alpha": 0, "adversary": adversary},
        }
    )  # fmt: skip


@cache
def images_of() -> Images:
    """Noise."""
    generator = np.random.default_rng(0)
    pixels = generator.integers(0, 256, (NUM_IMAGES, 3, SIZE, SIZE), dtype=np.uint8)
    return Images(pixels, generator.integers(0, 10, NUM_IMAGES), np.arange(NUM_IMAGES))


def feed_of(batch_size: int) -> TrainData:
    """All of them, decoded."""
    batches = ResidentBatches(images_of(), batch_size=batch_size, seed=0)
    return TrainData({"target": CLASSES}, {}, [1] * len(CLASSES), batches, None, {})
