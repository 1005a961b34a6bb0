"""Properties of every adapter on every backbone."""

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from temper.errors import ModelError
from temper.models.adapters import AdaLoRA, Adapter, Bottleneck, LoRA, NormBias, Prefix
from temper.models.small_resnet import resnet8
from temper.models.small_vit import SmallViT


def torchvision_vit() -> nn.Module:
    from torchvision.models import VisionTransformer

    vit = VisionTransformer(image_size=16, patch_size=8, num_layers=2, num_heads=2, hidden_dim=16, mlp_dim=32)
    vit.heads = nn.Identity()  # type: ignore[assignment]
    return vit


def timm_vit() -> nn.Module:
    timm = pytest.importorskip("timm")
    vit: nn.Module = timm.models.VisionTransformer(
        img_size=16, patch_size=8, embed_dim=16, depth=2, num_heads=2, num_classes=0, qk_norm=True
    )
    return vit


def mobilenet() -> nn.Module:
    from torchvision.models import MobileNetV2

    net = MobileNetV2(width_mult=0.1, inverted_residual_setting=[[1, 8, 1, 1], [6, 8, 2, 2]])
    net.classifier = nn.Identity()
    return net


def small_vit() -> nn.Module:
    return SmallViT(16, dim=16, depth=2, num_heads=2)


def torchvision_swin() -> nn.Module:
    """Its attention reads the weights of its linear layers."""
    from torchvision.models import SwinTransformer

    swin = SwinTransformer([2, 2], 16, depths=[1, 1], num_heads=[2, 2], window_size=[4, 4])
    swin.head = nn.Identity()  # type: ignore[assignment]
    return swin


def timm_beit() -> nn.Module:
    """Its attention has a bias of its own for queries, and reads the weights of its linear layers."""
    timm = pytest.importorskip("timm")
    beit: nn.Module = timm.models.Beit(
        img_size=16, patch_size=8, embed_dim=16, depth=1, num_heads=2, num_classes=0
    )
    return beit


BACKBONES = [resnet8, mobilenet, small_vit, torchvision_vit, torchvision_swin, timm_vit, timm_beit]
ADAPTERS = [
    LoRA(rank=2),
    AdaLoRA(init_rank=3, target_rank=2),
    Bottleneck(reduction=4),
    Prefix(num_tokens=3),
    NormBias(),
]
PAIRS = [
    pytest.param(adapter, build, id=f"{adapter.label}-{build.__name__}")
    for adapter in ADAPTERS
    for build in BACKBONES
    if not (adapter.kind == "prefix" and build in (resnet8, mobilenet))
]
Build = Callable[[], nn.Module]
pairs = pytest.mark.parametrize(("adapter", "build"), PAIRS)


def attached(adapter: Adapter, build: Build, seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    backbone = build().eval()
    for module in backbone.modules():  # statistics that are not those of a fresh layer
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.uniform_(-0.1, 0.1)  # type: ignore[union-attr]
    adapter.attach(backbone)
    trained = adapter.trained_names(backbone)
    for name, parameter in backbone.named_parameters():
        parameter.requires_grad_(name in trained)
    return backbone


def disturbed(adapter: Adapter, build: Build) -> nn.Module:
    """As after training: every trained parameter has moved."""
    backbone = attached(adapter, build)
    with torch.no_grad():
        for name in sorted(adapter.trained_names(backbone)):
            parameter = backbone.get_parameter(name)
            parameter.add_(0.1 * torch.randn_like(parameter))
    return backbone


@pytest.fixture
def images() -> Tensor:
    return torch.rand(4, 3, 16, 16, generator=torch.Generator().manual_seed(1))


@pairs
def test_changes_nothing_at_the_start(adapter: Adapter, build: Build, images: Tensor) -> None:
    backbone = attached(adapter, build)
    torch.manual_seed(0)
    plain = build().eval()
    for name, buffer in plain.named_buffers():
        if name.endswith("running_mean"):
            buffer.uniform_(-0.1, 0.1)
    assert torch.allclose(backbone(images), plain(images), atol=1e-6)
    with torch.no_grad():  # torch's attention has a fast path, which only one of them may take above
        assert torch.equal(backbone(images), plain(images))


@pairs
def test_trains_what_it_says_and_nothing_else(adapter: Adapter, build: Build, images: Tensor) -> None:
    backbone = attached(adapter, build)
    before = copy.deepcopy(backbone.state_dict())
    optimizer = torch.optim.Adam([p for p in backbone.parameters() if p.requires_grad], lr=0.01)
    for _ in range(3):  # behind factors and gates of zero, the others move from the second step on
        optimizer.zero_grad()
        (backbone(images) * torch.arange(4.0).view(4, 1)).square().sum().backward()
        optimizer.step()
    changed = {name for name, value in backbone.state_dict().items() if not torch.equal(value, before[name])}
    trained = adapter.trained_names(backbone)
    assert trained <= {name for name, _ in backbone.named_parameters()}
    assert changed == trained


@pairs
def test_an_attack_sees_through_it(adapter: Adapter, build: Build, images: Tensor) -> None:
    backbone = disturbed(adapter, build).requires_grad_(False)
    images.requires_grad_()
    features = backbone(images)
    (gradient,) = torch.autograd.grad(features.square().sum(), images)
    assert gradient.abs().amax(dim=(1, 2, 3)).min() > 0
    with torch.no_grad():
        assert torch.allclose(backbone(images), features, atol=1e-5)
    with torch.enable_grad():
        assert torch.equal(backbone(images), features), "two passes differ"


@pairs
def test_gradient_of_the_images_is_right(adapter: Adapter, build: Build, images: Tensor) -> None:
    backbone = disturbed(adapter, build).requires_grad_(False).double()
    images = images.double().requires_grad_()
    (gradient,) = torch.autograd.grad(backbone(images).square().sum(), images)
    direction = torch.randn(images.shape, generator=torch.Generator().manual_seed(2)).double()
    h = 1e-6
    higher, lower = (backbone(images + sign * h * direction).square().sum() for sign in (1, -1))
    assert torch.allclose((gradient * direction).sum(), (higher - lower) / (2 * h), rtol=1e-3)


@pairs
def test_its_state_survives_a_round_trip(adapter: Adapter, build: Build, images: Tensor) -> None:
    backbone = disturbed(adapter, build)
    fresh = attached(adapter, build, seed=9)
    fresh.load_state_dict({name: value.clone() for name, value in backbone.state_dict().items()})
    twin = copy.deepcopy(backbone)
    assert torch.equal(fresh(images), backbone(images))
    assert torch.equal(twin(images), backbone(images))
    assert adapter.trained_names(twin) == adapter.trained_names(backbone)
    assert not {id(p) for p in twin.parameters()} & {id(p) for p in backbone.parameters()}


@pairs
def test_keeps_its_weights_bit_for_bit(adapter: Adapter, build: Build, images: Tensor) -> None:
    backbone = disturbed(adapter, build)
    before = {name: (id(value), value.clone()) for name, value in backbone.state_dict(keep_vars=True).items()}
    for _ in range(3):
        backbone(images).sum().backward()
        with torch.no_grad():
            backbone(images)
    after = backbone.state_dict(keep_vars=True)
    assert {name: id(value) for name, value in after.items()} == {name: b[0] for name, b in before.items()}
    assert all(torch.equal(after[name], value) for name, (_, value) in before.items())


@pairs
def test_folds_into_a_plain_backbone(adapter: Adapter, build: Build, images: Tensor) -> None:
    backbone = disturbed(adapter, build)
    if adapter.kind in ("bottleneck", "prefix"):
        with pytest.raises(
            ModelError, match=rf"'{adapter.kind}' cannot be merged .* lora, adalora or norm_bias"
        ):
            adapter.fold(backbone)
        return
    before = {name: value.clone() for name, value in backbone.state_dict().items()}
    folded = adapter.fold(backbone)
    plain = build().eval()
    plain.load_state_dict(folded.state_dict())
    assert [type(m) for m in folded.modules()] == [type(m) for m in plain.modules()]
    assert torch.allclose(plain(images), backbone(images), atol=1e-4, rtol=1e-4)
    assert torch.equal(plain(images), folded(images))
    assert all(parameter.requires_grad for parameter in folded.parameters())
    assert all(torch.equal(value, before[name]) for name, value in backbone.state_dict().items())


@pairs
def test_same_seed_same_start(adapter: Adapter, build: Build) -> None:
    first, second = attached(adapter, build), attached(adapter, build)
    assert all(torch.equal(value, second.state_dict()[name]) for name, value in first.state_dict().items())


@pytest.mark.parametrize("adapter", ADAPTERS, ids=str)
def test_refuses_what_it_cannot_adapt(adapter: Adapter) -> None:
    nothing = nn.Sequential(nn.Flatten(), nn.ReLU())
    with pytest.raises(ModelError, match=f"model.adapter: '{adapter.kind}' adapts .* has none; use "):
        adapter.attach(nothing)
