"""How much higher than `standard` the suite `quick` says, and at what cost: a table of docs/evaluation.md.

    python bench/quick_optimism.py
    python bench/quick_optimism.py RUN [RUN ...] --images 150

Without runs, a small network that is hardened here, on digits, within balls of three norms. Of runs, their
own threat model and test images. Without the gates, whose finds count too.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from masked_models import load_digits
from temper.attacks import PGD
from temper.evaluation import CascadePlan, EvaluationPlan, prepare, suite_for
from temper.evaluation.chunk import evaluate_chunk
from temper.models import ModelSpec, build_model
from temper.run.run_target import RunTarget
from temper.spec import Threat

NUM_TRAIN, EPOCHS, EPS = 1200, 12, 0.15
THREATS = [
    Threat(eps=EPS), Threat(eps=0.1), Threat(norm="l2", eps=1.0), Threat(norm="l2", eps=1.5),
    Threat(norm="l1", eps=4.0), Threat(norm="l1", eps=8.0),
]  # fmt: skip


def hardened(images: np.ndarray, labels: np.ndarray) -> nn.Module:
    """A resnet8, trained against PGD-5."""
    classes = {"target": [str(digit) for digit in range(10)]}
    model = build_model(ModelSpec(backbone="resnet8"), classes, image_size=8, seed=0)
    pixels, targets = torch.from_numpy(images).float() / 255, torch.from_numpy(labels)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, weight_decay=5e-4)
    generator = torch.Generator().manual_seed(0)
    attack = PGD(eps=EPS, steps=5)
    for _ in range(EPOCHS):
        for rows in torch.randperm(len(labels), generator=generator).split(64):
            perturbed = attack.perturb(model.eval(), pixels[rows], targets[rows], generator)
            optimizer.zero_grad()
            F.cross_entropy(model.train()(perturbed), targets[rows]).backward()
            optimizer.step()
    return model.eval()


def row(name: str, model: nn.Module, images: np.ndarray, labels: np.ndarray, threat: Threat) -> str:
    """One line of the table: how many images stand, and the passes per image."""
    cells = []
    for suite in ("quick", "standard"):
        plan = EvaluationPlan(main=CascadePlan(threat=threat, suite=suite_for(suite, threat.norm)), seed=0)
        data, kept = prepare(images, labels, plan)
        rows = torch.arange(len(labels))
        found = evaluate_chunk(model, data, rows, kept, plan, 0, torch.device("cpu"))
        passes = (found.passes.num_forward + found.passes.num_backward) / len(labels)
        cells.append((int(found.cascades[0].standing.sum()), passes))
    (quick, cheap), (standard, dear) = cells
    gap = 100 * (quick - standard) / len(labels)
    counts = f"{len(labels)} | {quick} | {standard} | {gap:.1f} | {cheap:.0f} | {dear:.0f}"
    return f"| {name} | {threat.label} | {counts} |"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", nargs="*", type=Path)
    parser.add_argument("--images", type=int, default=150)
    given = parser.parse_args()
    torch.set_num_threads(1)
    print("| model | threat model | images | `quick` | `standard` | points apart | passes | passes |")
    print("|---|---|---:|---:|---:|---:|---:|---:|")
    if not given.runs:
        images, labels = load_digits()
        model = hardened(images[:NUM_TRAIN], labels[:NUM_TRAIN])
        for threat in THREATS:
            print(row("digits, PGD-5", model, images[NUM_TRAIN:], labels[NUM_TRAIN:], threat), flush=True)
    for path in given.runs:
        target, some = RunTarget.open(path), slice(given.images)
        images, labels = target.test.images[some], target.test.labels[some]
        print(row(path.name, target.model, images, labels, target.claim.threat), flush=True)


if __name__ == "__main__":
    main()
