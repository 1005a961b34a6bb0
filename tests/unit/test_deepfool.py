"""DeepFool: Foolbox image by image, a plane whose distance is known, and what a step costs."""

from typing import Any

import foolbox
import foolbox.attacks as fa
import pytest
import torch
from torch import Tensor, nn

from temper.attacks import DeepFool
from temper.attacks.norms import distances
from temper.spec import Threat

EPS = {"linf": 0.12, "l2": 0.8}
FOOLBOX = {"linf": fa.LinfDeepFoolAttack, "l2": fa.L2DeepFoolAttack}
norms = pytest.mark.parametrize("norm", list(EPS))


@norms
@pytest.mark.parametrize(("steps", "candidates"), [(25, 10), (25, 3), (1, 10), (2, 10)])
def test_ends_where_foolbox_ends(norm: Any, steps: int, candidates: int, hardened_digits: Any) -> None:
    """Point by point: also of images that are wrong from the start, or not fooled when the steps end."""
    network, images, labels = hardened_digits
    labels = torch.where(torch.arange(len(labels)) % 7 == 0, (labels + 1) % 10, labels)
    fmodel = foolbox.PyTorchModel(network, bounds=(0, 1))
    reference = FOOLBOX[norm](steps=steps, candidates=candidates)
    raw, clipped, success = reference(fmodel, images, labels, epsilons=EPS[norm])
    attack = DeepFool(steps=steps, candidates=candidates)
    assert torch.allclose(attack.search(network, images, labels, norm), raw, atol=1e-5)
    found = attack.run(network, images, labels, Threat(norm=norm, eps=EPS[norm]), seed=0)
    assert torch.allclose(found, clipped, atol=1e-5)
    assert torch.equal(network(found).argmax(1) != labels, success)
    assert 0 < success.sum() < len(labels)


@norms
def test_stays_in_the_ball_and_leaves_no_trace(norm: Any, hardened_digits: Any) -> None:
    network, images, labels = hardened_digits
    before = images.clone()
    attack, threat = DeepFool(steps=5), Threat(norm=norm, eps=EPS[norm] / 4)
    found = attack.run(network, images, labels, threat, seed=0)
    assert torch.equal(found, attack.run(network, images, labels, threat, seed=1))
    assert torch.equal(images, before)
    assert not found.requires_grad
    assert 0 <= found.min() <= found.max() <= 1
    assert distances(norm, found, images).max() <= EPS[norm] / 4 * (1 + 1e-5)
    still = DeepFool().run(network, images, labels, Threat(norm=norm, eps=0.0), seed=0)
    assert torch.equal(still, images)


class Planes(nn.Module):
    """Three classes whose logits are linear in the image."""

    def __init__(self) -> None:
        super().__init__()
        weight = torch.randn(3 * 64, 3, generator=torch.Generator().manual_seed(0))
        self.register_buffer("weight", weight)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = (images - 0.5).flatten(1) @ self.weight
        return logits


@norms
def test_the_nearest_of_two_planes(norm: Any) -> None:
    """Where logits are linear, one step ends at the nearest: |difference| / dual norm of its slope."""
    planes = Planes()
    images = 0.5 + 0.1 * torch.rand(20, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    logits = planes(images)
    labels = logits.argmax(1)
    order = 1 if norm == "linf" else 2
    expected = []
    for row, label in zip(logits, labels.tolist(), strict=True):
        expected.append(
            min(
                float((row[label] - row[other]) / torch.linalg.vector_norm(slope, order))
                for other in range(3)
                if other != label
                for slope in [planes.weight[:, label] - planes.weight[:, other]]
            )
        )
    found = DeepFool().search(planes, images, labels, norm)
    assert (planes(found).argmax(1) != labels).all()
    lengths = distances(norm, found, images)
    assert torch.allclose(lengths, torch.tensor(expected) * 1.02, atol=2e-4)


class Counted(nn.Module):
    """Counts images forward and back."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model, self.forwards, self.backwards = model, 0, 0

    def forward(self, images: Tensor) -> Tensor:
        self.forwards += len(images)
        logits: Tensor = self.model(images)
        logits.register_hook(self._count)  # type: ignore[no-untyped-call]
        return logits

    def _count(self, gradient: Tensor) -> None:
        self.backwards += len(gradient)


def test_fooled_images_leave(hardened_digits: Any) -> None:
    """One pass back for each other candidate of an image that stands, and one forward a step; little more."""
    network, images, labels = hardened_digits
    stands = torch.ones(len(labels), dtype=torch.bool)
    least_forward = least_back = 0
    for step in range(25):
        walked = DeepFool(steps=step).search(network, images, labels, "linf") if step else images
        least_forward += int(stands.sum())
        stands &= network(walked).argmax(1) == labels
        least_back += 9 * int(stands.sum())
        if not stands.any():
            break
    counted = Counted(network)
    DeepFool(steps=25).search(counted, images, labels, "linf")
    assert least_back <= counted.backwards <= 1.5 * least_back
    assert least_forward <= counted.forwards <= 2 * least_forward


def test_what_lets_no_gradient_through_is_left_alone(hardened_digits: Any) -> None:
    """Not even NaN comes back."""
    network, images, labels = hardened_digits
    with torch.no_grad():
        labels = network(images).argmax(1)
    attack = DeepFool(steps=2)
    found = attack.search(lambda points: network(points).detach(), images, labels, "linf")
    assert torch.equal(found, images)
    found = attack.search(
        lambda points: network(points) + 0 * (points.sum((1, 2, 3), keepdim=True).flatten(1) * torch.inf),
        images,
        labels,
        "linf",
    )
    assert torch.equal(found, images)


def test_l1_is_refused() -> None:
    images, labels = torch.rand(2, 3, 8, 8), torch.zeros(2, dtype=torch.int64)
    with pytest.raises(ValueError, match="deepfool supports the norms linf and l2, got l1"):
        DeepFool().run(Planes(), images, labels, Threat(norm="l1", eps=1.0), seed=0)
