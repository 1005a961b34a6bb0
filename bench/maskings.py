"""Prints docs/gates.md's table of planted maskings: `.venv/bin/python bench/maskings.py`, in minutes."""

import argparse
import copy

import numpy as np
import torch
from torch import nn

from masked_models import EPS, MASKS, load_digits, train
from temper.attacks import PGD
from temper.evaluation import CascadePlan, Evaluation, EvaluationPlan, evaluate_images, suite_for
from temper.evaluation.counted_model import held_still
from temper.spec import Threat

NUM_TRAIN = 1200


def claimed_by_pgd(model: nn.Module, images: np.ndarray, labels: np.ndarray) -> float:
    """Robust accuracy (fraction) as a bare loop of PGD-20 on the cross-entropy reports it."""
    pixels, targets = torch.from_numpy(images).float() / 255, torch.from_numpy(labels)
    with held_still(model, pixels[:8]) as held:
        attack = PGD(eps=EPS, steps=20)
        perturbed = attack.perturb(held.model, pixels, targets, torch.Generator().manual_seed(0))
        with torch.no_grad():
            return float((held.model(perturbed).argmax(1) == targets).double().mean())


def evaluate(model: nn.Module, images: np.ndarray, labels: np.ndarray, suite: str) -> Evaluation:
    plan = EvaluationPlan(main=CascadePlan(threat=Threat(eps=EPS), suite=suite_for(suite, "linf")), seed=0)
    names = [str(digit) for digit in range(10)]
    return evaluate_images(model, images, labels, np.arange(len(labels)), classes=names, plan=plan)


def main() -> None:
    """One row for the bare network and for each mask."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--suite", default="quick")
    parser.add_argument("--images", type=int, default=200)
    arguments = parser.parse_args()
    images, labels = load_digits()
    bare = train(images[:NUM_TRAIN], labels[:NUM_TRAIN])
    test = images[NUM_TRAIN:][: arguments.images], labels[NUM_TRAIN:][: arguments.images]
    print("| masking | clean | PGD-20 claims | temper finds | status | gates that caught it |")
    print("| --- | --- | --- | --- | --- | --- |")
    for name, mask in {"none": lambda model: model, **MASKS}.items():
        # Another for each: a mask may remember what it was asked.
        torch.manual_seed(0)
        claimed = claimed_by_pgd(mask(copy.deepcopy(bare)).eval(), *test)
        torch.manual_seed(0)
        found = evaluate(mask(copy.deepcopy(bare)).eval(), *test, arguments.suite)
        gates = ", ".join(gate.name for gate in found.gates if not gate.passed) or "–"
        shares = (found.clean_acc.value, claimed, found.robust_acc.value)
        cells = [name, *(f"{100 * share:.1f} %" for share in shares), found.status, gates]
        print(f"| {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
