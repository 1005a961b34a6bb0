"""BatchNorm that is held still: PyTorch's own answers and gradient, in the layout of its features."""

import pytest
import torch
from torch import Tensor, nn

from temper.models.eval_norm import EvalNorm, _Normalize


def norm(*, is_affine: bool) -> nn.BatchNorm2d:
    generator = torch.Generator().manual_seed(0)
    made = nn.BatchNorm2d(6, affine=is_affine).eval().requires_grad_(False)
    for name, tensor in made.state_dict().items():
        if tensor.is_floating_point():
            drawn = torch.rand(tensor.shape, generator=generator)
            tensor.copy_(drawn + 0.5 if name == "running_var" else drawn - 0.5)
    return made


def both(own: EvalNorm, features: Tensor, direction: Tensor) -> list[tuple[Tensor, Tensor]]:
    """Answers and gradients of PyTorch's, and of what a GPU computes instead."""
    found = []
    for forward in (own.norm, lambda points: _Normalize.apply(points, own.norm, own._scale)):
        points = features.detach().requires_grad_()
        answered = forward(points)
        found.append((answered.detach(), torch.autograd.grad(answered, points, direction)[0]))
    return found


@pytest.mark.parametrize("is_affine", [True, False])
def test_its_gradient_is_the_layer_s_own_and_lies_as_the_features_do(is_affine: bool) -> None:
    generator = torch.Generator().manual_seed(1)
    features, direction = (torch.randn(4, 6, 5, 5, generator=generator) for _ in range(2))
    features, direction = (one.to(memory_format=torch.channels_last) for one in (features, direction))
    own = EvalNorm(norm(is_affine=is_affine))
    for _ in range(2):
        (expected, slope), (answered, found) = both(own, features, direction)
        assert torch.equal(answered, expected)
        assert torch.allclose(found, slope, rtol=1e-6, atol=1e-7)
        assert found.stride() == features.stride()
        own.norm.running_var.mul_(2)  # type: ignore[union-attr]  # statistics that move in place
        own.refresh()
    assert torch.equal(own(features), own.norm(features))


def test_a_gradient_in_bf16_is_rounded_once() -> None:
    """From fp32, in which the factors are, and in bf16 as its features."""
    own, generator = EvalNorm(norm(is_affine=True)), torch.Generator().manual_seed(2)
    points, direction = (torch.randn(4, 6, 5, 5, generator=generator).bfloat16() for _ in range(2))
    points.requires_grad_()
    answered = _Normalize.apply(points, own.norm, own._scale)
    (found,) = torch.autograd.grad(answered, points, direction)
    assert torch.equal(found, (direction.float() * own._scale.view(1, -1, 1, 1)).bfloat16())
