"""Networks whose activations and gradients are computed in place answer as those without, to the last bit."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from temper.models import ModelSpec, build_model, folded_model
from temper.models.in_place import average_globally, relu_

CLASSES = {"target": ["a", "b", "c"]}
NETWORKS = ["resnet8", "resnet20", "preact_resnet18", "wide_resnet16_4", "cifar_resnet20"]
ADAPTERS = [None, {"kind": "lora", "rank": 2}, {"kind": "bottleneck"}, {"kind": "norm_bias"}]


def plainly(monkeypatch: pytest.MonkeyPatch) -> None:
    """Put torch's own functions into the networks."""
    for module in ("small_resnet", "wide_resnet", "cifar_resnet"):
        monkeypatch.setattr(f"temper.models.{module}.relu_", F.relu)
        monkeypatch.setattr(
            f"temper.models.{module}.average_globally",
            lambda features: F.adaptive_avg_pool2d(features, 1).flatten(1),
        )


def gradients(model: nn.Module, batch: Tensor, *, times: int = 1) -> list[Tensor]:
    """Of the images and of all parameters, from each of ``times`` passes back through one graph."""
    batch = batch.clone().requires_grad_()
    parameters = [one for one in model.parameters() if one.requires_grad]
    logits = model(batch)
    found: list[Tensor] = [logits.detach()]
    for number in range(times):
        loss = F.cross_entropy(logits, (torch.arange(len(batch)) + number) % 3)
        found += torch.autograd.grad(loss, [batch, *parameters], retain_graph=True)
    return found


def built(backbone: str, adapter: object = None) -> nn.Module:
    spec = ModelSpec.model_validate({"backbone": backbone, "adapter": adapter})
    return build_model(spec, CLASSES, image_size=16, seed=0)


def same(ours: list[Tensor], theirs: list[Tensor]) -> bool:
    return all(torch.equal(mine, other) for mine, other in zip(ours, theirs, strict=True))


IMAGES = torch.rand(6, 3, 16, 16, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("is_training", [True, False])
@pytest.mark.parametrize("backbone", NETWORKS)
def test_answers_and_gradients_are_those_of_torch(
    monkeypatch: pytest.MonkeyPatch, backbone: str, is_training: bool
) -> None:
    ours = gradients(built(backbone).train(is_training), IMAGES, times=2)
    plainly(monkeypatch)
    assert same(ours, gradients(built(backbone).train(is_training), IMAGES, times=2))


@pytest.mark.parametrize("adapter", ADAPTERS[1:], ids=lambda adapter: adapter["kind"])
@pytest.mark.parametrize("backbone", ["resnet8", "cifar_resnet20"])
def test_so_they_are_where_adapters_read_the_activations(
    monkeypatch: pytest.MonkeyPatch, adapter: object, backbone: str
) -> None:
    """Weights' gradients of a convolution without BatchNorm depend on the layout, by rounding."""
    ours = gradients(built(backbone, adapter).train(), IMAGES)
    plainly(monkeypatch)
    theirs = gradients(built(backbone, adapter).train(), IMAGES)
    assert all(torch.allclose(a, b, rtol=1e-5, atol=1e-7) for a, b in zip(ours, theirs, strict=True))


@pytest.mark.parametrize("backbone", NETWORKS)
def test_so_they_are_through_the_folded_twin(monkeypatch: pytest.MonkeyPatch, backbone: str) -> None:
    def through_a_twin() -> list[Tensor]:
        model = built(backbone).eval().requires_grad_(False)
        twin = folded_model(model, IMAGES[:2])
        assert twin is not None
        return gradients(twin, IMAGES, times=3)

    ours = through_a_twin()
    plainly(monkeypatch)
    assert same(ours, through_a_twin())


def test_a_gradient_of_the_gradient_is_left_to_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    def curvature() -> Tensor:
        batch = IMAGES.clone().requires_grad_()
        model = built("resnet8").eval()
        (first,) = torch.autograd.grad(model(batch).square().sum(), batch, create_graph=True)
        return torch.autograd.grad(first.square().sum(), batch)[0]

    ours = curvature()
    assert ours.abs().max() > 0
    plainly(monkeypatch)
    assert torch.equal(ours, curvature())


@pytest.mark.parametrize("operation", [relu_, average_globally])
@pytest.mark.parametrize("memory_format", [torch.channels_last, torch.contiguous_format])
def test_the_gradient_lies_in_memory_as_the_features_do(
    operation: Callable[[Tensor], Tensor], memory_format: torch.memory_format
) -> None:
    features = torch.randn(2, 5, 4, 4).contiguous(memory_format=memory_format).requires_grad_()
    answered = operation(features * 1.0)
    (gradient,) = torch.autograd.grad(answered.sum(), features)
    assert gradient.is_contiguous(memory_format=memory_format)
    expected = (features > 0).float() if operation is relu_ else torch.full_like(features, 1 / 16)
    assert torch.equal(gradient, expected)


def test_nothing_is_recorded_without_need() -> None:
    with torch.no_grad():
        assert relu_(torch.tensor([-1.0, 2.0], requires_grad=True) * 1.0).tolist() == [0.0, 2.0]
    assert relu_(torch.tensor([-1.0, 2.0])).grad_fn is None
