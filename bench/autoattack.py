"""Our suite `standard` against AutoAttack (arXiv:2003.01690): the table of docs/evaluation.md.

    TEMPER_DATA=... python bench/autoattack.py [--reference FOLDER] [--weights FOLDER] [--only TEXT]

Robust accuracy of both, the images on which they differ, and the ratio of their times, those of the
processor, so that other work on the machine hardly counts. OMP_NUM_THREADS=1 is best.

FOLDER of --reference is a clone of AutoAttack by its authors. Without one, the attacks of torchattacks with
the paper's settings stand in, which have no L1. FOLDER of --weights holds the weights files of CIFAR-10's
ResNets. Without TEMPER_DATA only the models on digits are tried.
"""

import argparse
import importlib
import os
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
import torchattacks
from torch import Tensor, nn

from honest_zoo import Task, digits, fit, fresh, pretrained, real
from row import Row
from temper.evaluation import CascadePlan, EvaluationPlan, prepare, suite_for
from temper.evaluation.chunk import evaluate_chunk
from temper.spec import Threat

MAX_APART = 0.005
"""Robust accuracy by which both may differ in `make bench`."""

BATCH_SIZE = 128
NORMS = {"linf": "Linf", "l2": "L2", "l1": "L1"}
Judged = tuple[nn.Module, Tensor, Tensor]
"""A model, images uint8 (N,3,S,S) and labels (N,)."""


@dataclass(frozen=True)
class Case:
    """A model, made when its turn comes, and the threat models to evaluate it within."""

    name: str
    task: Callable[[int], Task]
    make: Callable[[Task], nn.Module]
    threats: tuple[Threat, ...]

    def judged(self, count: int) -> Judged:
        """With ``count`` test images, or as many as there are."""
        task = self.task(count)
        # The authors' code takes no images that lie otherwise in memory.
        return self.make(task), *(torch.from_numpy(part).contiguous() for part in task.test)


def hardened(steps: int, threat: Threat) -> Callable[[Task], nn.Module]:
    """A resnet8 from a random start, trained within ``threat``."""
    return lambda task: fit(fresh("resnet8", task), task, steps, lr=3e-3, threat=threat)


def balls(norm: str, *sizes: float) -> tuple[Threat, ...]:
    """Threat models of ``norm``."""
    return tuple(Threat(norm=norm, eps=eps) for eps in sizes)


DIGITS = Case(
    "digits, resnet8, hardened",
    digits,
    hardened(240, Threat(eps=0.1)),
    (*balls("linf", 0.1, 0.15), *balls("l2", 0.5, 1.0), *balls("l1", 2.0, 4.0)),
)


def cases(weights: Path | None) -> list[Case]:
    """Digits; with TEMPER_DATA and ``weights`` the others."""
    if "TEMPER_DATA" not in os.environ:
        return [DIGITS]

    def set_of(name: str) -> Callable[[int], Task]:
        return lambda count: real(name, 32, 2000, count)

    small = Threat(eps=4 / 255)
    found = [
        DIGITS,
        Case("road signs, resnet8, hardened", set_of("traffic_signs"), hardened(400, small), (small,)),
        Case(
            "CIFAR-10, resnet8, hardened", set_of("cifar10"), hardened(400, small),
            (*balls("linf", 2 / 255, 4 / 255), *balls("l2", 0.25, 0.5), *balls("l1", 4.0)),
        ),
    ]  # fmt: skip
    if weights is not None:
        folder = weights
        found.append(
            Case(
                "CIFAR-10, ResNet-20, undefended", set_of("cifar10"),
                lambda task: pretrained("cifar_resnet20", folder, task),
                (*balls("linf", 1 / 255), *balls("l2", 0.1)),
            )
        )  # fmt: skip
    return found


def ours(judged: Judged, threat: Threat) -> tuple[Tensor, float]:
    """(N,) bool: images that stand; seconds."""
    model, images, labels = judged
    started = time.process_time()
    plan = EvaluationPlan(main=CascadePlan(threat=threat, suite=suite_for("standard", threat.norm)), seed=0)
    data, kept = prepare(images.numpy(), labels.numpy(), plan)
    rows = torch.arange(len(labels))
    found = evaluate_chunk(model, data, rows, kept, plan, 0, torch.device("cpu"))
    return found.cascades[0].standing, time.process_time() - started


def authors(judged: Judged, threat: Threat, folder: Path) -> tuple[Tensor, float]:
    """The same of the authors' AutoAttack in ``folder``."""
    model, images, labels = judged
    sys.path.insert(0, str(folder))
    attack = importlib.import_module("autoattack").AutoAttack(
        model,
        norm=NORMS[threat.norm],
        eps=threat.eps,
        seed=0,
        verbose=False,
        version="standard",
        device="cpu",
    )
    sys.path.remove(str(folder))
    started = time.process_time()
    perturbed = attack.run_standard_evaluation(images.float() / 255, labels, bs=BATCH_SIZE)
    with torch.no_grad():
        standing = model(perturbed).argmax(1) == labels
    return standing, time.process_time() - started


def stand_in(judged: Judged, threat: Threat) -> tuple[Tensor, float]:
    """The same of torchattacks with the paper's steps: its own wrapper takes 10 for each 100."""
    model, images, labels = judged
    started = time.process_time()
    with torch.no_grad():
        # As in the paper: 9 goals, however many classes there are.
        num_classes = min(10, model(images[:1].float() / 255).shape[1])
    common = {"eps": threat.eps, "norm": NORMS[threat.norm], "seed": 0}
    goals = {"n_classes": num_classes, "n_restarts": 1}
    attack = torchattacks.MultiAttack(
        [
            torchattacks.APGD(model, steps=100, loss="ce", **common),
            torchattacks.APGDT(model, steps=100, n_classes=num_classes, **common),
            torchattacks.FAB(model, steps=100, multi_targeted=True, **goals, **common),
            torchattacks.Square(model, n_queries=5000, n_restarts=1, **common),
        ]
    )
    standing = []
    for part in torch.arange(len(labels)).split(BATCH_SIZE):
        perturbed = attack(images[part].float() / 255, labels[part])
        with torch.no_grad():
            standing.append(model(perturbed).argmax(1) == labels[part])
    return torch.cat(standing), time.process_time() - started


def rows(_folder: Path) -> Iterator[Row]:
    """The digits at 8 px: once, for it takes a minute or two, and everything in it is seeded."""
    judged, threat = DIGITS.judged(128), DIGITS.threats[0]
    standing = torch.empty(0)

    def mine() -> float:
        nonlocal standing
        standing, seconds = ours(judged, threat)
        return seconds

    def theirs() -> float:
        other, seconds = stand_in(judged, threat)
        apart = abs(float(standing.double().mean() - other.double().mean()))
        if apart > MAX_APART:
            raise SystemExit(f"suite standard and AutoAttack are {100 * apart:.1f} points apart")
        return seconds

    yield Row(
        "suite standard", "AutoAttack of torchattacks", "CPU s", "<= 0.5", mine, theirs, rounds=1, warm_ups=0
    )


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--reference", type=Path)
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--only", default="", help="part of a case's name")
    parser.add_argument("--count", type=int, default=256)
    given = parser.parse_args()
    torch.set_num_threads(1)
    peer = "AutoAttack" if given.reference else "AutoAttack of torchattacks"
    print(f"| model | threat model | images | `standard` | {peer} | only one stands | time, ratio |")
    print("|---|---|---:|---:|---:|---:|---:|")
    for case in cases(given.weights):
        if given.only not in case.name:
            continue
        judged = case.judged(given.count)
        for threat in case.threats:
            if given.reference is None and threat.norm == "l1":
                continue
            standing, seconds = ours(judged, threat)
            theirs, longer = (
                authors(judged, threat, given.reference) if given.reference else stand_in(judged, threat)
            )
            counts = f"{len(theirs)} | {int(standing.sum())} | {int(theirs.sum())}"
            apart = f"{int((standing != theirs).sum())} | {seconds / longer:.2f}"
            print(f"| {case.name} | {threat.label} | {counts} | {apart} |", flush=True)


if __name__ == "__main__":
    main()
