"""Bottlenecks and prefixes by themselves."""

import pytest
import torch
from torch import nn

from temper.errors import ModelError
from temper.models.adapters import Bottleneck, Prefix
from temper.models.adapters.prefix import PrefixedAttention
from temper.models.small_resnet import preact_resnet18, resnet8


def test_prefix_needs_attention() -> None:
    with pytest.raises(ModelError, match=r"adapts attention, .*SmallResNet.* use lora, bottleneck"):
        Prefix().attach(resnet8())


def test_branches_side_by_side_are_no_residual_blocks() -> None:
    from torchvision.models import ShuffleNetV2

    with pytest.raises(ModelError, match="'bottleneck' adapts transformer blocks or residual blocks"):
        Bottleneck().attach(ShuffleNetV2([1, 1, 1], [8, 16, 16, 16, 32]))


def test_bottleneck_counts() -> None:
    backbone = preact_resnet18()
    Bottleneck(reduction=8).attach(backbone)
    trained = sum(backbone.get_parameter(n).numel() for n in Bottleneck().trained_names(backbone))
    per_block = [2 * c * (c // 8) + c + c // 8 for c in (64, 128, 256, 512)]
    assert trained == 2 * sum(per_block)


def test_prefix_equals_a_second_attention_by_hand() -> None:
    torch.manual_seed(0)
    inner = nn.MultiheadAttention(16, 2, batch_first=True)
    module = PrefixedAttention(inner, num_tokens=3)
    nn.init.normal_(module.gate)
    tokens = torch.randn(2, 5, 16)
    extra = torch.zeros(2, 5, 16)
    for head in range(2):
        part = slice(8 * head, 8 * head + 8)
        queries = tokens @ inner.in_proj_weight[part].T + inner.in_proj_bias[part]
        weights = torch.softmax(queries @ module.prefix_key[head].T / 8**0.5, dim=-1)
        extra[..., part] = torch.tanh(module.gate[head]) * (weights @ module.prefix_value[head])
    plain = inner(tokens, tokens, tokens, need_weights=False)[0]
    expected = plain + extra @ inner.out_proj.weight.T
    assert torch.allclose(module(tokens, tokens, tokens, need_weights=False)[0], expected, atol=1e-5)
