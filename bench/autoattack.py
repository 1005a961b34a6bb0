"""Our suite `standard` against AutoAttack's, of torchattacks: robust accuracy, and the time it takes.

    python bench/autoattack.py [--set cifar10|traffic_signs] [--count 256] [--size 32]

Prints a row of a Markdown table: robust accuracy of both, images on which they differ, and the ratio of their
times, those of the processor, so that other work on the machine hardly counts. OMP_NUM_THREADS=1 is best.
Without --set the case is scikit-learn's digits at their 8 px; the real sets are read from TEMPER_DATA.
"""

import argparse
import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import torch
import torchattacks

from hardened import Case, digits_case, fit
from row import Row
from temper.data import ShardSet, load_images, write_shards
from temper.evaluation import CascadePlan, EvaluationPlan, suite_for
from temper.evaluation.cascade import LabelledImages
from temper.evaluation.chunk import evaluate_chunk
from temper.records import AttackRecord
from temper.spec import Threat

MAX_APART = 0.005
"""Robust accuracy by which both may differ."""


def rows(_folder: Path) -> Iterator[Row]:
    """The digits at 8 px: once, for it takes a minute or two, and everything in it is seeded."""
    both = Both(digits_case(count=128))
    yield Row(
        "suite standard", "AutoAttack of torchattacks", "CPU s", "<= 0.5", both.ours, both.peer,
        rounds=1, warm_ups=0,
    )  # fmt: skip


class Both:
    """Our suite and AutoAttack, which must find the same robust accuracy up to ``MAX_APART``."""

    def __init__(self, case: Case) -> None:
        self._case, self._standing = case, torch.empty(0)

    def ours(self) -> float:
        self._standing, seconds, _ = ours(self._case, "standard")
        return seconds

    def peer(self) -> float:
        """After ``ours``."""
        theirs, seconds = reference(self._case)
        mine, other = (float(standing.double().mean()) for standing in (self._standing, theirs))
        if abs(mine - other) > MAX_APART:
            raise SystemExit(f"suite standard: {mine:.3f} of the images stand, and {other:.3f} in AutoAttack")
        return seconds


def real_case(name: str, size: int, count: int, eps: float, epochs: int) -> Case:
    """A resnet8 hardened on a set of TEMPER_DATA."""
    with tempfile.TemporaryDirectory() as folder:
        write_shards(Path(os.environ["TEMPER_DATA"]) / name, Path(folder) / "shards", size=size)
        shards = ShardSet.open(Path(folder) / "shards")
        train, test = (load_images(shards, split, size, "pad") for split in ("train", "test"))
    images = torch.from_numpy(train.images).float() / 255
    model = fit(images, torch.from_numpy(train.labels), len(shards.classes), size, eps, epochs)
    chosen = torch.randperm(len(test.labels), generator=torch.Generator().manual_seed(0))[:count]
    pixels, labels = torch.from_numpy(test.images)[chosen], torch.from_numpy(test.labels)[chosen]
    return Case(model, model, pixels, labels, eps)


def ours(case: Case, suite: str) -> tuple[torch.Tensor, float, list[AttackRecord]]:
    """(N,) bool: images that stand; seconds; what each member did."""
    started = time.process_time()
    plan = EvaluationPlan(
        main=CascadePlan(threat=Threat(eps=case.eps), suite=suite_for(suite, "linf")), seed=0
    )
    data, count = LabelledImages(case.images, case.labels), len(case.labels)
    kept = torch.zeros(count, dtype=torch.bool)
    found = evaluate_chunk(case.robust, data, torch.arange(count), kept, plan, 0, torch.device("cpu"))
    seconds = time.process_time() - started
    return found.cascades[0].standing, seconds, found.cascades[0].records()


def reference(case: Case) -> tuple[torch.Tensor, float]:
    """AutoAttack `standard` with the paper's steps: torchattacks' own wrapper takes 10 for each 100."""
    started = time.process_time()
    images = case.images.float() / 255
    with torch.no_grad():
        # As in the paper: 9 goals, however many classes there are.
        num_classes = min(10, case.robust(images[:1]).shape[1])
    common = {"eps": case.eps, "norm": "Linf", "seed": 0}
    attack = torchattacks.MultiAttack(
        [
            torchattacks.APGD(case.robust, steps=100, loss="ce", **common),
            torchattacks.APGDT(case.robust, steps=100, n_classes=num_classes, **common),
            torchattacks.FAB(
                case.robust, steps=100, multi_targeted=True, n_classes=num_classes, n_restarts=1, **common
            ),
            torchattacks.Square(case.robust, n_queries=5000, n_restarts=1, **common),
        ]
    )
    standing = []
    for start in range(0, len(images), 128):
        part = slice(start, start + 128)
        adversarial = attack(images[part], case.labels[part])
        with torch.no_grad():
            standing.append(case.robust(adversarial).argmax(1) == case.labels[part])
    return torch.cat(standing), time.process_time() - started


def main() -> None:
    """Both, one after the other."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--set")
    parser.add_argument("--suite", default="standard")
    parser.add_argument("--count", type=int, default=256)
    parser.add_argument("--size", type=int, default=32)
    parser.add_argument("--eps", type=float, default=None)
    parser.add_argument("--epochs", type=int, default=12)
    arguments = parser.parse_args()
    if arguments.set:
        eps = arguments.eps or 4 / 255
        case = real_case(arguments.set, arguments.size, arguments.count, eps, arguments.epochs)
    else:
        case = digits_case(count=arguments.count, eps=arguments.eps or 0.1, epochs=arguments.epochs)
    standing, seconds, records = ours(case, arguments.suite)
    for one in records:
        print(f"  {one.name}: {one.num_attacked} -> {one.num_fooled} in {one.seconds:.1f} s")
    theirs, their_seconds = reference(case)
    name, total = arguments.set or "digits", len(standing)
    print("| set | images | robust %, temper | robust %, AutoAttack | only one stands | time, ratio |")
    print("|---|---:|---:|---:|---:|---:|")
    print(
        f"| {name} | {total} | {100 * standing.float().mean():.1f} | {100 * theirs.float().mean():.1f} "
        f"| {int((standing != theirs).sum())} | {seconds / their_seconds:.2f} |"
    )


if __name__ == "__main__":
    main()
