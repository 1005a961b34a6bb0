"""The gradient of images through a strided first convolution is that of PyTorch's own."""

import pytest
import torch
from torch import Tensor, nn

from temper.attacks import attack_mode
from temper.models import ModelSpec, build_model, folded_model
from temper.models.stem import SamePaddedStem, StridedStem, is_strided_stem


def gradient(conv: nn.Module, images: Tensor) -> Tensor:
    images = images.clone().requires_grad_()
    answered = conv(images)
    direction = torch.randn(answered.shape, generator=torch.Generator().manual_seed(1)).to(answered)
    return torch.autograd.grad((answered * direction).sum(), images)[0]


@pytest.mark.parametrize("side", [13, 16, 17])
@pytest.mark.parametrize(
    ("kernel", "stride", "padding"), [(7, 2, 3), (3, 2, 1), (3, 2, 0), (11, 4, 2), (4, 4, 0)]
)
def test_the_gradient_is_pytorchs(side: int, kernel: int, stride: int, padding: int) -> None:
    plain = nn.Conv2d(3, 8, kernel, stride, padding).double().requires_grad_(False)
    ours = StridedStem(3, 8, kernel, stride, padding).double().requires_grad_(False)
    ours.load_state_dict(plain.state_dict())
    images = torch.rand(2, 3, side, side + 3, generator=torch.Generator().manual_seed(0)).double()
    assert torch.equal(ours(images), plain(images))
    assert torch.allclose(gradient(ours, images), gradient(plain, images), rtol=0, atol=1e-12)


@pytest.mark.parametrize("side", [13, 16, 17])
@pytest.mark.parametrize(("kernel", "stride"), [(3, 2), (7, 2), (4, 4)])
def test_the_gradient_is_timms_where_it_pads_as_tensorflow_does(side: int, kernel: int, stride: int) -> None:
    layers = pytest.importorskip("timm.layers")
    plain = layers.Conv2dSame(3, 8, kernel, stride).double().requires_grad_(False)
    ours = SamePaddedStem(3, 8, kernel, stride).double().requires_grad_(False)
    ours.load_state_dict(plain.state_dict())
    images = torch.rand(2, 3, side, side + 3, generator=torch.Generator().manual_seed(0)).double()
    assert torch.equal(ours(images), plain(images))
    assert torch.allclose(gradient(ours, images), gradient(plain, images), rtol=0, atol=1e-12)


def test_sides_may_differ_in_everything() -> None:
    plain = nn.Conv2d(1, 8, (5, 3), (3, 2), (2, 0)).double().requires_grad_(False)
    ours = StridedStem(1, 8, (5, 3), (3, 2), (2, 0)).double().requires_grad_(False)
    ours.load_state_dict(plain.state_dict())
    images = torch.rand(2, 1, 14, 19, generator=torch.Generator().manual_seed(0)).double()
    assert torch.allclose(gradient(ours, images), gradient(plain, images), rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    "conv",
    [
        nn.Conv2d(3, 8, 3, 1, 1),
        nn.Conv2d(16, 32, 3, 2, 1),
        nn.Conv2d(3, 9, 3, 2, 1, groups=3),
        nn.Conv2d(3, 8, 3, 2, 2, dilation=2),
        nn.Conv2d(3, 8, 3, 2, 1, padding_mode="reflect"),
    ],
    ids=str,
)
def test_other_convolutions_are_left_as_they_are(conv: nn.Conv2d) -> None:
    assert not is_strided_stem(conv)


def test_the_twin_of_a_resnet18_has_one_and_the_models_gradients() -> None:
    model = build_model(ModelSpec(backbone="resnet18"), {"target": ["a", "b"]}, image_size=64, seed=0).eval()
    model.double()  # in float32 a unit next to nothing may be on in one of them and off in the other
    images = torch.rand(4, 3, 64, 64, generator=torch.Generator().manual_seed(0)).double()
    twin = folded_model(model, images)
    assert twin is not None
    assert isinstance(twin.module.get_submodule("backbone.conv1"), StridedStem)
    with attack_mode(model):
        assert torch.allclose(gradient(twin.module, images), gradient(model, images), atol=1e-6)
