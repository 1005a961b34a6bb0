import pytest
import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import nn

from temper.attacks import PGD
from temper.models import ModelSpec, TaskModel, build_model


@pytest.fixture
def model() -> TaskModel:
    """A small network with two heads, in eval mode, deterministic."""
    classes = {"target": ["a", "b", "c"], "source": ["x", "y"]}
    return build_model(ModelSpec(backbone="resnet8"), classes, image_size=16, seed=0).eval()


@pytest.fixture
def batch() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.rand(12, 3, 16, 16, generator=generator), torch.randint(0, 3, (12,), generator=generator)


@pytest.fixture(scope="session")
def hardened_digits() -> tuple[nn.Sequential, torch.Tensor, torch.Tensor]:
    """A small network of 10 classes, trained on PGD at Linf 0.1, and 256 digits (3x8x8) that it never saw."""
    digits = load_digits()
    images = torch.tensor(digits.images).float()[:, None].repeat(1, 3, 1, 1) / 16
    labels = torch.tensor(digits.target)
    generator = torch.Generator().manual_seed(0)
    order = torch.randperm(len(images), generator=generator)
    images, labels = images[order], labels[order]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        body = [nn.Conv2d(3, 16, 3, 1, 1), nn.ReLU(), nn.Conv2d(16, 32, 3, 2, 1), nn.ReLU()]
        network = nn.Sequential(*body, nn.Flatten(), nn.Linear(512, 10))
    optimizer = torch.optim.SGD(network.parameters(), lr=0.05, momentum=0.9)
    pgd = PGD(eps=0.1, steps=3)
    for _ in range(150):
        chosen = torch.randint(256, len(images), (64,), generator=generator)
        perturbed = pgd.perturb(network, images[chosen], labels[chosen], generator)
        optimizer.zero_grad()
        F.cross_entropy(network(perturbed), labels[chosen]).backward()
        optimizer.step()
    network.zero_grad(set_to_none=True)
    return network.eval().requires_grad_(False), images[:256], labels[:256]
