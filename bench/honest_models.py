"""Prints docs/gates.md's table of honest models, none of which a gate may block.

    TEMPER_DATA=... python bench/honest_models.py [--weights FOLDER] [--only TEXT]

Undefended and hardened, under-trained, probed, fine-tuned, with adapters, of every family of backbones.
FOLDER holds the weights files of CIFAR-10's ResNets; without it these are left out, and so is
EfficientNet-Lite0, whose weights come with temper[weights]. Without TEMPER_DATA only the models on digits are
tried. Exits with 1 where a gate fired.

Each is evaluated like a model from elsewhere, so that no gate knows that temper made it.
"""

import argparse
import functools
import os
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from honest_zoo import LITE0, Function, Task, digits, fit, fresh, pretrained, real
from temper.evaluation import CascadePlan, Evaluation, EvaluationPlan, evaluate_images, suite_for
from temper.models.adapters import AnyAdapter, Bottleneck, LoRA, NormBias
from temper.spec import Threat

NUM_TEST = 64
STRONG, MEDIUM, LINF, SMALL = (Threat(eps=eps) for eps in (0.2, 0.1, 8 / 255, 1 / 255))
L2, L1, PATCH = Threat(norm="l2", eps=0.5), Threat(norm="l1", eps=2.0), Threat(norm="patch", eps=0.06)


Make = Callable[[Task], nn.Module]


@dataclass(frozen=True)
class Case:
    """A model, made when its turn comes, and the threat models to evaluate it within."""

    name: str
    task: str
    make: Make
    threats: tuple[Threat, ...]
    standard: tuple[Threat, ...] = ()
    """Where the suite ``standard`` is tried beside ``quick``."""

    @property
    def plans(self) -> list[tuple[Threat, str]]:
        """Threat models and suites, in order."""
        return [*((one, "quick") for one in self.threats), *((one, "standard") for one in self.standard)]


@functools.cache
def task_of(name: str) -> Task:
    """Such as ``traffic_signs 32``: a set and its images' size."""
    if name == "digits":
        return digits(NUM_TEST)
    if name == "two digits":
        return digits(NUM_TEST, classes=2)
    folder, size = name.split()
    return real(folder, int(size), 1500, NUM_TEST)


def on_digits() -> list[Case]:
    """At 8 px; they need no files."""

    def hardened(name: str, threat: Threat, steps: int = 120) -> Make:
        return lambda task: fit(fresh(name, task), task, steps, lr=3e-3, threat=threat)

    def plain(name: str, steps: int = 100, lr: float = 3e-3) -> Make:
        return lambda task: fit(fresh(name, task), task, steps, lr=lr)

    return [
        Case("resnet8", "digits", plain("resnet8"), (STRONG, LINF, L2, PATCH), (STRONG,)),
        Case("resnet8, 8 steps", "digits", plain("resnet8", 8), (LINF, SMALL)),
        Case("resnet8, untrained", "digits", lambda task: fresh("resnet8", task), (LINF,)),
        Case("resnet8, hardened", "digits", hardened("resnet8", MEDIUM), (MEDIUM, L2), (MEDIUM,)),
        Case("resnet8, hardened (patch)", "digits", hardened("resnet8", PATCH), (PATCH,)),
        Case("resnet8, hardened (L2)", "digits", hardened("resnet8", L2), (L2, L1)),
        Case(
            "resnet8, binary head", "two digits",
            lambda task: fit(fresh("resnet8", task, is_binary=True), task, 60, lr=3e-3), (MEDIUM,),
        ),
        Case("resnet20", "digits", plain("resnet20"), (STRONG, LINF)),
        Case("preact_resnet18", "digits", plain("preact_resnet18", 30, 1e-3), (MEDIUM,)),
        Case("wide_resnet16_4", "digits", plain("wide_resnet16_4", 40, 2e-3), (MEDIUM, L2)),
        Case("small_vit", "digits", plain("small_vit", 60, 3e-3), (MEDIUM, LINF, L2)),
        Case("small_vit, hardened", "digits", hardened("small_vit", LINF, 30), (LINF,)),
        Case("small_vit, 8 steps", "digits", plain("small_vit", 8), (LINF,)),
        Case("linear", "digits", lambda task: foreign(task, nn.Linear(192, 10)), (MEDIUM, L2), (MEDIUM,)),
        Case("tanh, log-probabilities", "digits", _tanh, (MEDIUM, L2), (L2,)),
    ]  # fmt: skip


def foreign(task: Task, *layers: nn.Module) -> nn.Module:
    """A network of torch's own layers on pixels of [-1,1]."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), *layers)
    for layer in network:
        if hasattr(layer, "reset_parameters"):
            layer.reset_parameters()
    model = Function(network, lambda images: images * 2 - 1)
    images, labels = (torch.from_numpy(part) for part in task.train)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for _ in range(200):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(images.float() / 255), labels).backward()
        optimizer.step()
    return model.eval()


def _tanh(task: Task) -> nn.Module:
    return foreign(task, nn.Linear(192, 64), nn.Tanh(), nn.Linear(64, 10), nn.LogSoftmax(1))


def on_photographs() -> list[Case]:
    """Of TEMPER_DATA, from a random start."""

    def plain(name: str, steps: int = 60, lr: float = 2e-3, **options: Any) -> Make:
        return lambda task: fit(fresh(name, task), task, steps, lr=lr, **options)

    signs, tiles, rays, clothes = "traffic_signs 32", "magnetic_tile 32", "chest_xray 32", "fashion_mnist 32"
    hardened = plain("resnet8", 80, 3e-3, threat=Threat(eps=2 / 255))
    return [
        Case("resnet8", signs, plain("resnet8", 150, 3e-3), (LINF, SMALL, L2, PATCH)),
        Case("resnet8, hardened", signs, hardened, (Threat(eps=2 / 255),)),
        Case("resnet18", signs, plain("resnet18"), (LINF, SMALL)),
        Case("mobilenet_v3_small", signs, plain("mobilenet_v3_small"), (LINF, L2)),
        Case("shufflenet_v2_x0_5", signs, plain("shufflenet_v2_x0_5"), (LINF, SMALL)),
        Case("squeezenet1_1", signs, plain("squeezenet1_1", 60, 5e-4), (LINF, SMALL)),
        Case("efficientnet_b0", signs, plain("efficientnet_b0", 40), (LINF,)),
        Case("mnasnet0_5", signs, plain("mnasnet0_5"), (LINF,)),
        Case("regnet_x_400mf", signs, plain("regnet_x_400mf", 40), (SMALL,)),
        Case("small_vit", clothes, plain("small_vit", 100, 1e-3), (LINF, SMALL)),
        Case("resnet20", clothes, plain("resnet20", 60, 3e-3), (LINF, L2)),
        Case(
            "resnet8, balanced", tiles, plain("resnet8", 100, 3e-3, is_balanced=True), (LINF, SMALL), (LINF,)
        ),
        Case("resnet8, 20 steps", tiles, plain("resnet8", 20, 3e-3, is_balanced=True), (SMALL,)),
        Case("resnet8", rays, plain("resnet8", 100, 3e-3), (LINF, SMALL)),
        Case("resnet8, hardened", rays, plain("resnet8", 60, 3e-3, threat=LINF), (LINF,)),
        Case("resnet8, 10 steps", rays, plain("resnet8", 10, 3e-3), (SMALL,)),
        Case("wide_resnet16_4, 20 steps", "cifar10 32", plain("wide_resnet16_4", 20), (SMALL,)),
    ]


def on_weights(folder: Path) -> list[Case]:
    """Pretrained: as they are, probed, fine-tuned, with adapters, hardened."""
    photos, signs, tiles, rays = "cifar10 32", "traffic_signs 32", "magnetic_tile 64", "chest_xray 64"
    twenty, fifty_six, head = "cifar_resnet20", "cifar_resnet56", ("head",)

    def start(name: str, adapter: AnyAdapter | None = None) -> Make:
        return lambda task: pretrained(name, folder, task, adapter)

    def tuned(start: Make, steps: int, lr: float = 1e-3, **options: Any) -> Make:
        return lambda task: fit(start(task), task, steps, lr=lr, **options)  # type: ignore[arg-type]

    def of_tiles(steps: int, lr: float = 1e-3, **options: Any) -> Make:
        return tuned(start(LITE0), steps, lr, is_balanced=True, **options)

    two = Threat(eps=2 / 255)
    return [
        Case(twenty, photos, start(twenty), (LINF, SMALL, L2, PATCH), (LINF, SMALL)),
        Case(fifty_six, photos, start(fifty_six), (LINF, SMALL)),
        Case(f"{twenty}, hardened", photos, tuned(start(twenty), 40, threat=two), (two,)),
        Case(f"{twenty}, probed", signs, tuned(start(twenty), 80, 1e-2, groups=head), (LINF, SMALL)),
        Case(f"{twenty}, fine-tuned", signs, tuned(start(twenty), 80, 2e-3), (LINF, L2)),
        Case(f"{twenty}, LoRA", signs, tuned(start(twenty, LoRA(rank=4)), 60, 5e-3), (LINF,)),
        Case(f"{twenty}, norm_bias", signs, tuned(start(twenty, NormBias()), 60, 5e-3), (SMALL,)),
        Case("Lite0, probed", tiles, of_tiles(60, 1e-2, groups=head), (LINF, SMALL)),
        Case("Lite0, fine-tuned", tiles, of_tiles(40), (LINF, SMALL)),
        Case("Lite0, 20 steps at 1e-4", tiles, of_tiles(20, 1e-4), (SMALL,)),
        Case("Lite0, hardened", tiles, of_tiles(25, threat=SMALL), (SMALL,)),
        Case("Lite0, probed", rays, tuned(start(LITE0), 60, 1e-2, groups=head), (SMALL,)),
        Case("Lite0, bottleneck", rays, tuned(start(LITE0, Bottleneck()), 25, 5e-3), (SMALL,)),
        Case("Lite0, norm_bias", rays, tuned(start(LITE0, NormBias()), 25, 5e-3), (SMALL,)),
    ]


def evaluate(model: nn.Module, task: Task, threat: Threat, suite: str) -> Evaluation:
    """By temper's own evaluation."""
    plan = EvaluationPlan(main=CascadePlan(threat=threat, suite=suite_for(suite, threat.norm)), seed=0)
    rows = np.arange(len(task.test[1]))
    return evaluate_images(Function(model), *task.test, rows, classes=task.classes, plan=plan)


def cases(weights: Path | None) -> Iterator[Case]:
    yield from on_digits()
    if "TEMPER_DATA" in os.environ:
        yield from on_photographs()
        if weights is not None:
            yield from on_weights(weights)


def main() -> None:
    """One row for each model and threat model."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--only", default="", help="part of a row's name")
    arguments = parser.parse_args()
    print("| model | images | threat model | suite | clean | robust | gates that fired |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    num_models = num_rows = num_blocked = 0
    started = time.process_time()
    for case in cases(arguments.weights):
        if arguments.only not in f"{case.name} {case.task}":
            continue
        task = task_of(case.task)
        model = case.make(task)
        num_models += 1
        for threat, suite in case.plans:
            found = evaluate(model, task, threat, suite)
            fired = [gate for gate in found.gates if not gate.passed]
            num_rows, num_blocked = num_rows + 1, num_blocked + bool(fired)
            print(row(case, threat, suite, found), flush=True)
            for gate in fired:
                print(f"{gate.name}: {gate.detail}", file=sys.stderr, flush=True)
    minutes = (time.process_time() - started) / 60
    print(f"\n{num_models} models, {num_rows} evaluations, {num_blocked} blocked.")
    print(f"{minutes:.1f} minutes of a processor", file=sys.stderr)
    sys.exit(num_blocked > 0)


def row(case: Case, threat: Threat, suite: str, found: Evaluation) -> str:
    """Of the table."""
    shares = (f"{100 * share:.1f} %" for share in (found.clean_acc.value, found.robust_acc.value))
    fired = ", ".join(gate.name for gate in found.gates if not gate.passed) or "–"
    return f"| {' | '.join([case.name, case.task, threat.label, suite, *shares, fired])} |"


if __name__ == "__main__":
    main()
