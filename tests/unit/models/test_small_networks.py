import itertools

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from temper.models.backbones import build_backbone
from temper.models.small_vit import SmallAttention
from temper.models.wide_resnet import WideResNet

STATISTICS = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")


def warm(network: nn.Module) -> nn.Module:
    """BatchNorms with statistics and weights of their own."""
    for name, tensor in network.state_dict().items():
        if tensor.ndim == 1:
            tensor.copy_(torch.rand(tensor.shape) + (0.5 if "var" in name or "weight" in name else -0.5))
    return network.eval()


def wide_resnet_from_its_paper(state: dict[str, Tensor], images: Tensor) -> Tensor:
    """Features of a Wide ResNet in eval mode, from nothing but its state dict."""

    def norm(name: str, out: Tensor) -> Tensor:
        mean, var, weight, bias = (
            state[f"{name}.{n}"] for n in ("running_mean", "running_var", "weight", "bias")
        )
        scale = weight / torch.sqrt(var + 1e-5)
        return F.relu(out * scale[:, None, None] + (bias - mean * scale)[:, None, None])

    out = F.conv2d(images, state["conv1.weight"], padding=1)
    for stage in (1, 2, 3):
        for number in itertools.count():
            name = f"block{stage}.layer.{number}"
            if f"{name}.conv1.weight" not in state:
                break
            stride = 2 if stage > 1 and number == 0 else 1
            first = norm(f"{name}.bn1", out)
            second = norm(f"{name}.bn2", F.conv2d(first, state[f"{name}.conv1.weight"], None, stride, 1))
            shortcut = state.get(f"{name}.convShortcut.weight")
            if shortcut is not None:
                out = F.conv2d(first, shortcut, None, stride)
            out = out + F.conv2d(second, state[f"{name}.conv2.weight"], None, 1, 1)
    return norm("bn1", out).mean(dim=(2, 3))


def test_wide_resnet_is_that_of_the_paper() -> None:
    torch.manual_seed(0)
    network = warm(WideResNet(16, 2))
    images = torch.rand(3, 3, 16, 16)
    with torch.no_grad():
        expected = wide_resnet_from_its_paper(network.state_dict(), images)
        assert torch.allclose(network(images), expected, atol=1e-4, rtol=1e-4)


def test_names_in_a_wide_resnet_are_those_of_the_checkpoints() -> None:
    norms = [f"{block}.bn{n}" for block in ("block1.layer.0", "block2.layer.1") for n in (1, 2)] + ["bn1"]
    convs = ["conv1", "block1.layer.0.conv1", "block3.layer.1.conv2", "block2.layer.0.convShortcut"]
    names = set(WideResNet(16, 1).state_dict())
    assert {f"{name}.{part}" for name in norms for part in STATISTICS} <= names
    assert {f"{name}.weight" for name in convs} <= names
    assert "block1.layer.0.convShortcut.weight" not in names  # 16 channels before and after: nothing to adapt


@pytest.mark.parametrize(
    ("name", "millions"),
    [("wide_resnet16_4", 2.7), ("wide_resnet28_10", 36.5), ("wide_resnet34_10", 46.2),
     ("wide_resnet34_20", 184.5), ("wide_resnet70_16", 266.8), ("preact_resnet18", 11.2),
     ("small_vit", 0.45)],
)  # fmt: skip
def test_sizes_known_from_the_papers(name: str, millions: float) -> None:
    with torch.device("meta"):
        module = build_backbone(name, 32).module
    assert sum(p.numel() for p in module.parameters()) / 1e6 == pytest.approx(millions, abs=0.06)


@pytest.mark.parametrize("size", [8, 32, 64])
def test_small_vit_has_as_many_tokens_at_every_size(size: int) -> None:
    backbone = build_backbone("small_vit", size)
    tokens = []
    backbone.module.get_submodule("blocks").register_forward_hook(lambda m, i, out: tokens.append(out.shape))
    assert backbone.module(torch.rand(2, 3, size, size)).shape == (2, 96)
    assert tokens == [(2, 65, 96)]


def attention_pair() -> tuple[SmallAttention, nn.MultiheadAttention]:
    torch.manual_seed(0)
    ours, theirs = SmallAttention(24, 3), nn.MultiheadAttention(24, 3, batch_first=True)
    with torch.no_grad():
        theirs.in_proj_weight.copy_(ours.qkv.weight)
        theirs.in_proj_bias.copy_(ours.qkv.bias)
        theirs.out_proj.load_state_dict(ours.proj.state_dict())
    return ours, theirs


def test_attention_is_torchs() -> None:
    ours, theirs = attention_pair()
    tokens = torch.randn(2, 5, 24)
    expected, _ = theirs(tokens, tokens, tokens, need_weights=False)
    assert torch.allclose(ours(tokens), expected, atol=1e-5)


@pytest.mark.parametrize("name", ["wide_resnet16_4", "preact_resnet18", "small_vit", "cifar_resnet20"])
def test_every_parameter_takes_part(name: str) -> None:
    torch.manual_seed(0)
    network = build_backbone(name, 8).module
    network(torch.randn(4, 3, 8, 8)).square().sum().backward()
    for parameter in network.parameters():
        assert parameter.grad is not None
        assert parameter.grad.isfinite().all()
        assert parameter.grad.any()
