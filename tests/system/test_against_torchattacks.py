"""Our attacks and torchattacks', side by side on real images: the same budgets, the same robust accuracy."""

import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import torchattacks
from PIL import Image
from torch import Tensor, nn

from temper.attacks import APGD, PGD, GoalAPGD, Member, Square, apgd, attack_mode
from temper.spec import Threat

EPS = {"linf": 4 / 255, "l2": 0.5}
THEIR_NORM = {"linf": "Linf", "l2": "L2"}


def read_split(folder: Path) -> tuple[Tensor, Tensor]:
    """Images (N,3,32,32) in [0,1] and labels (N,) of class folders."""
    images, labels = [], []
    for label, class_folder in enumerate(sorted(folder.iterdir())):
        for path in sorted(class_folder.iterdir()):
            images.append(np.asarray(Image.open(path).convert("RGB").resize((32, 32))))
            labels.append(label)
    return torch.tensor(np.stack(images).transpose(0, 3, 1, 2)).contiguous().float() / 255, torch.tensor(
        labels
    )


@pytest.fixture(scope="module")
def hardened_signs(real_images: Any) -> tuple[nn.Module, Tensor, Tensor]:
    """A small network trained on PGD at Linf 4/255, and 256 test images of traffic signs."""
    folder = real_images("traffic_signs")
    images, labels = read_split(folder / "train")
    generator = torch.Generator().manual_seed(0)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        body = [nn.AvgPool2d(2), nn.Conv2d(3, 24, 3, 1, 1), nn.ReLU(), nn.Conv2d(24, 48, 3, 2, 1), nn.ReLU()]
        network = nn.Sequential(
            *body, nn.Conv2d(48, 48, 3, 2, 1), nn.ReLU(), nn.Flatten(), nn.Linear(768, 20)
        )
    num_steps = 400
    optimizer = torch.optim.Adam(network.parameters())
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 5e-3, total_steps=num_steps)
    pgd = PGD(eps=4 / 255, steps=2)
    for _ in range(num_steps):
        chosen = torch.randint(len(images), (64,), generator=generator)
        with attack_mode(network):
            perturbed = pgd.perturb(network, images[chosen], labels[chosen], generator)
        optimizer.zero_grad()
        F.cross_entropy(network(perturbed), labels[chosen]).backward()
        optimizer.step()
        schedule.step()
    images, labels = read_split(folder / "test")
    chosen = torch.randperm(len(images), generator=generator)[:256]
    return network.eval().requires_grad_(False), images[chosen], labels[chosen]


def stand(network: nn.Module, perturbed: Tensor, labels: Tensor) -> Tensor:
    with torch.no_grad():
        return network(perturbed).argmax(1) == labels


def compare(
    ours: Member,
    theirs: Any,
    threat: Threat,
    hardened: tuple[nn.Module, Tensor, Tensor],
    seed: int = 0,
) -> tuple[Tensor, Tensor]:
    """Which of the images that were right still are: under ours, and under theirs."""
    network, images, labels = hardened
    right = network(images).argmax(1) == labels
    images, labels = images[right], labels[right]
    started = time.process_time()
    perturbed = ours.run(network, images, labels, threat, seed)
    our_time, started = time.process_time() - started, time.process_time()
    with torch.random.fork_rng():
        perturbed_by_theirs = theirs(images, labels)
    ratio = our_time / (time.process_time() - started)
    ours_stand, theirs_stand = stand(network, perturbed, labels), stand(network, perturbed_by_theirs, labels)
    counts = f"{int(ours_stand.sum())} and {int(theirs_stand.sum())} of {len(labels)} stand"
    print(f"{ours.name}, {threat.label} and torchattacks': {counts}; CPU time {ratio:.2f}")
    return ours_stand, theirs_stand


@pytest.mark.long
@pytest.mark.parametrize("norm", list(EPS))
@pytest.mark.parametrize("loss", ["cross_entropy", "dlr", "goal dlr"])
def test_apgd(norm: Any, loss: Any, hardened_signs: Any) -> None:
    network = hardened_signs[0]
    settings: Any = {"norm": THEIR_NORM[norm], "eps": EPS[norm], "n_restarts": 1}
    ours: Member
    if loss == "goal dlr":
        ours = GoalAPGD(steps=20, num_goals=5)
        theirs = torchattacks.APGDT(network, steps=20, n_classes=6, **settings)
    else:
        ours = APGD(steps=50, loss=loss)
        name = {"cross_entropy": "ce", "dlr": "dlr"}[loss]
        theirs = torchattacks.APGD(network, steps=50, loss=name, **settings)
    threat = Threat(norm=norm, eps=EPS[norm])
    mine, wanted = (int(left.sum()) for left in compare(ours, theirs, threat, hardened_signs))
    assert 50 < wanted < 250
    assert abs(mine - wanted) <= 1


@pytest.mark.long
@pytest.mark.parametrize("norm", list(EPS))
def test_square(norm: Any, hardened_signs: Any) -> None:
    """On the images that gradients can fool, a third of all: elsewhere a search costs most and finds nothing.

    Two random searches of the same kind differ by a few images, so what stands after three is compared.
    One-sided, because theirs never reaches the last row and column.
    """
    network, images, labels = hardened_signs
    reachable = apgd(network, images, labels, norm, EPS[norm], steps=50, start=images).fooled
    hardened = network, images[reachable], labels[reachable]
    attack, threat, runs = Square(num_queries=1000), Threat(norm=norm, eps=EPS[norm]), []
    for seed in range(3):
        settings: Any = {"norm": THEIR_NORM[norm], "eps": EPS[norm], "n_restarts": 1, "seed": seed}
        theirs = torchattacks.Square(network, n_queries=1000, **settings)
        runs.append(torch.stack(compare(attack, theirs, threat, hardened, seed)))
    mine, wanted = torch.stack(runs).all(0).sum(1).tolist()
    assert wanted < 50
    assert mine <= wanted + 4
