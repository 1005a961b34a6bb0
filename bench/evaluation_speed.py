"""Our cascade against Foolbox on every image with every attack: the same attacks, the same survivors.

Times are those of the processor, so that other work on the machine hardly counts; each side of a round has a
process of its own, with one thread.
"""

import time
from collections.abc import Iterator
from pathlib import Path

import foolbox
import foolbox.attacks as fa
import torch

from hardened import digits_case, digits_model
from own_process import in_own_process
from row import Measure, Row
from temper.attacks import DeepFool, FullFGSM, LastPGD
from temper.evaluation.cascade import LabelledImages
from temper.evaluation.chunk import evaluate_chunk
from temper.evaluation.plan import CascadePlan, EvaluationPlan
from temper.evaluation.suite import Suite
from temper.host import use_cpu
from temper.spec import Threat

# Without random starts, so that both sides do the very same.
MEMBERS = (
    FullFGSM(),
    LastPGD(steps=20, rel_stepsize=0.125, random_start=False),
    DeepFool(steps=25),
    LastPGD(steps=100, rel_stepsize=0.1, random_start=False),
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


def rows(folder: Path) -> Iterator[Row]:
    """On a weak model, a robust one, over five eps; in each round both sides must leave the same standing."""
    case = digits_case(size=32, count=128)
    weights = {"weak": case.weak.state_dict(), "robust": case.robust.state_dict()}
    torch.save({"weights": weights, "images": case.images, "labels": case.labels}, folder / "case.pt")
    for name, goal, model, levels, rounds in (
        ("cascade, weak model", ">= 10", "weak", (1.0,), 3),
        ("cascade, robust model", ">= 2.5", "robust", (1.0,), 3),
        ("cascade, robust model, five eps", ">= 3", "robust", CURVE, 1),
    ):
        eps = tuple(case.eps * level for level in levels)
        sides = [in_own_process(make, folder, model, eps, warm_ups=0) for make in (Cascade, NaiveFoolbox)]
        both = Both(name, folder, *sides)
        yield Row(
            name, "Foolbox on everything", "images/CPU s", goal, both.ours, both.peer, rounds, warm_ups=0
        )


class Both:
    """Our way and the naive one, whose survivors must be the same."""

    def __init__(self, name: str, folder: Path, ours: Measure, naive: Measure) -> None:
        self._name, self._folder, self.ours, self._naive = name, folder, ours, naive

    def peer(self) -> float:
        """After ``ours``."""
        speed = self._naive()
        mine, theirs = (torch.load(self._folder / f"{side.__name__}.pt") for side in (Cascade, NaiveFoolbox))
        if not torch.equal(mine, theirs):
            raise SystemExit(
                f"{self._name}: survivors differ, {mine.sum(1).tolist()} and {theirs.sum(1).tolist()}"
            )
        return speed


class Cascade:
    """What ``temper evaluate`` does, without gates."""

    def __init__(self, folder: Path, model: str, levels: tuple[float, ...]) -> None:
        self._folder, self._levels = folder, levels
        case = torch.load(folder / "case.pt")
        self._images, self._labels = case["images"], case["labels"]
        self._model = digits_model(self._images.shape[-1])
        self._model.load_state_dict(case["weights"][model])
        self.set_up()
        suite = Suite(name="bench", members=MEMBERS)
        main = CascadePlan(threat=Threat(eps=levels[0]), suite=suite)
        self._plan = EvaluationPlan(main=main, curve=levels[1:], seed=0)

    def __call__(self) -> float:
        """Images per second of the processor; who stands is left in the folder."""
        started = time.process_time()
        survivors = self.survivors()
        speed = survivors.shape[1] / (time.process_time() - started)
        torch.save(survivors, self._folder / f"{type(self).__name__}.pt")
        return speed

    def set_up(self) -> None:
        """The process, as those of ``temper evaluate`` are."""
        use_cpu(1)

    def survivors(self) -> torch.Tensor:
        """(levels, N) bool."""
        count = len(self._labels)
        data = LabelledImages(self._images, self._labels)
        kept, rows = torch.zeros(count, dtype=torch.bool), torch.arange(count)
        found = evaluate_chunk(self._model, data, rows, kept, self._plan, 0, torch.device("cpu"))
        return torch.stack([cascade.standing for cascade in found.cascades])


class NaiveFoolbox(Cascade):
    """What one would write by hand: every attack of Foolbox on every image, at every eps."""

    def set_up(self) -> None:
        torch.set_num_threads(1)

    def survivors(self) -> torch.Tensor:
        images, labels = self._images.float() / 255, self._labels
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
