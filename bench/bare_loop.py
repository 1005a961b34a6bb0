"""What one would write by hand: a model, arrays in memory and a loop; no records, phases or checkpoints.

    python bench/bare_loop.py RECIPE IMAGES.npz

Takes the very steps of ``temper train RECIPE``: the same start, order, augmentation and optimizer. Prints the
seconds at which each epoch ended, its mean loss and the peak memory as JSON.
"""

import json
import sys
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from temper.batches import augment
from temper.data import Plan
from temper.models import build_model
from temper.recipe import Recipe, load_recipe
from temper.seeds import derive_seed


def train(recipe: Recipe, images: Tensor, labels: Tensor) -> tuple[list[tuple[float, float]], list[float]]:
    """When each epoch ended, in seconds of the clock and of the processor, and its mean loss."""
    torch.set_num_threads(recipe.workers.cpus_per_worker)
    classes = {"target": [str(label) for label in range(int(labels.max()) + 1)]}
    model = build_model(recipe.model, classes, image_size=recipe.data.image_size, seed=recipe.seed)
    model.to(memory_format=torch.channels_last)
    optim, adversary = recipe.optim, recipe.objective.adversary
    optimizer = torch.optim.SGD(
        model.parameters(), lr=optim.lr, momentum=optim.momentum, weight_decay=optim.weight_decay
    )
    plan = Plan(len(labels), recipe.data.batch_size, derive_seed(recipe.seed, "batches", "target"))
    ends, losses = list[tuple[float, float]](), list[float]()
    for epoch in range(recipe.epochs):
        total = torch.zeros(())
        for step, rows in enumerate(map(torch.from_numpy, plan.share(plan.order(epoch)))):
            seed = derive_seed(recipe.seed, "augment", epoch, step, 0)
            batch = augment(images[rows], recipe.data.augment, torch.Generator().manual_seed(seed))
            if adversary is not None:
                batch = perturb(model, batch, labels[rows], adversary.eps, adversary.steps)
            model.train()
            loss = F.cross_entropy(model(batch), labels[rows])
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            total += loss.detach()
        losses.append(float(total) / len(plan.sizes()))
        ends.append((time.time(), time.process_time()))
    return ends, losses


def perturb(model: torch.nn.Module, images: Tensor, labels: Tensor, eps: float, steps: int) -> Tensor:
    """PGD in eval mode with frozen parameters: the fastest plain form."""
    model.eval().requires_grad_(False)
    adversarial = (images + torch.empty_like(images).uniform_(-eps, eps)).clamp(0, 1)
    for _ in range(steps):
        adversarial.requires_grad_()
        (gradient,) = torch.autograd.grad(F.cross_entropy(model(adversarial), labels), adversarial)
        adversarial = adversarial.detach() + 2.5 * eps / steps * gradient.sign()
        adversarial = (images + (adversarial - images).clamp(-eps, eps)).clamp(0, 1)
    model.requires_grad_(True)
    return adversarial


def peak_mb(process: int | str = "self") -> float:
    """The most memory that a process has held at once, its share of files and of Ray's store included."""
    for line in Path(f"/proc/{process}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    raise ProcessLookupError(process)


def main() -> None:
    recipe, data, begun = load_recipe(sys.argv[1]), np.load(sys.argv[2]), time.time()
    ends, losses = train(recipe, torch.from_numpy(data["images"]), torch.from_numpy(data["labels"]))
    print(json.dumps({"begun": begun, "ends": ends, "losses": losses, "peak_mb": peak_mb()}))


if __name__ == "__main__":
    main()
