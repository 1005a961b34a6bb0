"""Our cascade against Foolbox on every image with every attack: the same attacks, the same survivors.

Times are those of the processor, so that other work on the machine hardly counts.
"""

import time
from collections.abc import Iterator
from pathlib import Path

import foolbox
import foolbox.attacks as fa
import torch

from hardened import Case, digits_case
from row import Row
from temper.evaluation.cascade import LabelledImages
from temper.evaluation.chunk import evaluate_chunk
from temper.evaluation.members import DeepFoolMember, FGSMMember, PGDMember
from temper.evaluation.plan import CascadePlan, EvaluationPlan
from temper.evaluation.suite import Suite
from temper.models import TaskModel
from temper.spec import Threat

# Without random starts, so that both sides do the very same.
MEMBERS = (
    FGSMMember(),
    PGDMember(steps=20, rel_stepsize=0.125, random_start=False),
    DeepFoolMember(steps=25),
    PGDMember(steps=100, rel_stepsize=0.1, random_start=False),
)
PEERS = (
    fa.LinfFastGradientAttack(),
    fa.LinfPGD(steps=20, rel_stepsize=0.125, random_start=False),
    fa.LinfDeepFoolAttack(steps=25, candidates=10),
    fa.LinfPGD(steps=100, rel_stepsize=0.1, random_start=False),
)
"""``MEMBERS`` as Foolbox has them."""
CURVE = (0.25, 0.5, 0.75, 1.0, 1.25)
"""Times eps."""


def rows(_folder: Path) -> Iterator[Row]:
    """On a weak model, a robust one, over five eps; in each round both sides must leave the same standing."""
    case = digits_case(size=32, count=128)
    for name, goal, model, levels, rounds in (
        ("cascade, weak model", ">= 10", case.weak, (1.0,), 3),
        ("cascade, robust model", ">= 2.5", case.robust, (1.0,), 3),
        ("cascade, robust model, five eps", ">= 3", case.robust, CURVE, 1),
    ):
        eps = tuple(case.eps * level for level in levels)
        both = Both(name, Cascade(model, case, eps), NaiveFoolbox(model, case, eps))
        yield Row(
            name,
            "Foolbox on everything",
            "images/CPU s",
            goal,
            both.ours,
            both.peer,
            rounds=rounds,
            warm_ups=0,
        )


class Both:
    """Our way and the naive one, whose survivors must be the same."""

    def __init__(self, name: str, cascade: "Cascade", naive: "NaiveFoolbox") -> None:
        self._name, self._cascade, self._naive = name, cascade, naive
        self._survivors = torch.empty(0)

    def ours(self) -> float:
        self._survivors, speed = timed(self._cascade)
        return speed

    def peer(self) -> float:
        """After ``ours``."""
        theirs, speed = timed(self._naive)
        if not torch.equal(self._survivors, theirs):
            mine = self._survivors.sum(1).tolist()
            raise SystemExit(f"{self._name}: survivors differ, {mine} and {theirs.sum(1).tolist()}")
        return speed


def timed(side: "Cascade") -> tuple[torch.Tensor, float]:
    """(levels, N) bool: images that stand; images per second of the processor."""
    started = time.process_time()
    survivors = side.survivors()
    return survivors, survivors.shape[1] / (time.process_time() - started)


class Cascade:
    """What ``temper evaluate`` does, without gates."""

    def __init__(self, model: TaskModel, case: Case, levels: tuple[float, ...]) -> None:
        self._model, self._case, self._levels = model, case, levels
        suite = Suite(name="bench", members=MEMBERS)
        main = CascadePlan(threat=Threat(eps=levels[0]), suite=suite)
        self._plan = EvaluationPlan(main=main, curve=levels[1:], seed=0)

    def survivors(self) -> torch.Tensor:
        """(levels, N) bool."""
        count = len(self._case.labels)
        data = LabelledImages(self._case.images, self._case.labels)
        kept, rows = torch.zeros(count, dtype=torch.bool), torch.arange(count)
        found = evaluate_chunk(self._model, data, rows, kept, self._plan, 0, torch.device("cpu"))
        return torch.stack([cascade.standing for cascade in found.cascades])


class NaiveFoolbox(Cascade):
    """What one would write by hand: every attack of Foolbox on every image, at every eps."""

    def survivors(self) -> torch.Tensor:
        images, labels = self._case.images.float() / 255, self._case.labels
        fmodel = foolbox.PyTorchModel(self._model, bounds=(0, 1))
        correct = fmodel(images).argmax(1) == labels
        rows = []
        for eps in self._levels:
            standing = correct.clone()
            for attack in PEERS:
                for start in range(0, len(labels), 128):
                    part = slice(start, start + 128)
                    _, _, fooled = attack(fmodel, images[part], labels[part], epsilons=eps)
                    standing[part] &= ~fooled
            rows.append(standing)
        # What falls within a smaller ball has fallen in a larger one.
        return torch.stack(rows).cummin(0).values
