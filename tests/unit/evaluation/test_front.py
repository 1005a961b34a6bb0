"""What stands between the images and a model's features is found, whatever the model is made of."""

import importlib
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from temper.evaluation import CascadePlan, EvaluationPlan, evaluate_images, suite_for
from temper.evaluation.gates.front import SCALE_ALONE, Front, WithoutFront
from temper.spec import Threat

masked = importlib.import_module("masked_models")


@pytest.fixture(scope="module")
def network() -> nn.Module:
    torch.manual_seed(0)
    layers = (
        nn.Conv2d(3, 8, 3, padding=1),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Linear(32, 10),
    )
    return nn.Sequential(*layers).eval()


@pytest.fixture(scope="module")
def images() -> Tensor:
    return torch.rand(16, 3, 8, 8, generator=torch.Generator().manual_seed(0))


class InFunctions(nn.Module):
    """A network of functions alone, behind eight shades."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.kernel = nn.Parameter(torch.randn(8, 3, 3, 3, generator=generator))

    def forward(self, images: Tensor) -> Tensor:
        shades = (images * 7).round() / 7
        return nn.functional.conv2d(shades, self.kernel).relu().mean((2, 3))


def test_a_normalization_alone_is_no_front(images: Tensor) -> None:
    model = masked.Masked(nn.Conv2d(3, 10, 8), lambda x: (x - 0.4) / 0.2, lambda z: z.flatten(1))
    front = Front.of(model, images)
    assert front is not None
    assert front.left < SCALE_ALONE
    torch.testing.assert_close(front.factor.flatten(), torch.full((3,), 5.0))
    torch.testing.assert_close(front.offset.flatten(), torch.full((3,), -2.0))


@pytest.mark.parametrize("hidden", [False, True])
def test_steps_of_the_model_s_own_are_taken_off_exactly(
    network: nn.Module, images: Tensor, hidden: bool
) -> None:
    """The model asks itself about the image as it is, before it takes steps: that shows the true scale."""
    model = masked.AntiAdversary(network, steps=3, step_size=0.1)
    model = masked.OutOfSight(model) if hidden else model
    front = Front.of(model, images)
    assert front is not None
    assert front.call == 5
    assert front.left > 0.01
    bare = WithoutFront(model, front, off=True)
    assert torch.equal(bare(images), network(images))
    assert not torch.equal(model(images), network(images))


def test_going_back_the_front_is_the_identity(images: Tensor) -> None:
    model = InFunctions()
    front = Front.of(model, images)
    assert front is not None
    assert front.left > SCALE_ALONE
    straight = WithoutFront(model, front, off=False)
    perturbed = images.clone().requires_grad_()
    logits = straight(perturbed)
    torch.testing.assert_close(logits, model(images))
    (gradient,) = torch.autograd.grad(logits.sum(), perturbed)
    assert gradient.abs().sum() > 0


def test_a_model_that_torch_does_not_run_has_none(images: Tensor) -> None:
    class Outside(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            return torch.from_numpy(images.numpy().mean((2, 3)))

    assert Front.of(Outside(), images) is None


def test_what_a_front_hides_is_looked_for_on_more_than_a_sample(hardened_digits: Any) -> None:
    """Two steps of its own hide a few points of a hardened network."""
    network, digits, labels = hardened_digits
    model = masked.AntiAdversary(network).eval()
    pixels = (255 * digits).round().to(torch.uint8).numpy()
    plan = EvaluationPlan(main=CascadePlan(threat=Threat(eps=0.1), suite=suite_for("quick", "linf")), seed=0)
    names = [str(digit) for digit in range(10)]
    found = evaluate_images(
        model, pixels[:200], labels[:200].numpy(), np.arange(200), classes=names, plan=plan
    )
    (gate,) = (gate for gate in found.gates if gate.name == "without its front")
    assert not gate.passed
    num_attacked = int(gate.detail.split(" of ")[1].split()[0])
    assert num_attacked > 64
