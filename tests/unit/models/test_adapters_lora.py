"""LoRA, and what AdaLoRA shares with it, against formulas and against peft."""

import copy
import sys
from typing import Any

import pytest
import torch
from torch import nn

from temper.errors import ModelError
from temper.models.adapters import AdaLoRA, LoRA
from temper.models.small_resnet import resnet8
from temper.models.small_vit import SmallViT


def attached(adapter: LoRA | AdaLoRA, backbone: nn.Module) -> nn.Module:
    torch.manual_seed(0)
    for parameter in backbone.parameters():
        nn.init.normal_(parameter, std=0.3)
    adapter.attach(backbone)
    trained = adapter.trained_names(backbone)
    for name, parameter in backbone.named_parameters():
        parameter.requires_grad_(name in trained)
    return backbone.eval()


def disturb(backbone: nn.Module) -> nn.Module:
    with torch.no_grad():
        for parameter in backbone.parameters():
            if parameter.requires_grad:
                parameter.add_(0.3 * torch.randn_like(parameter))
    return backbone


@pytest.mark.parametrize("rank", [1, 3])
def test_lora_is_the_formula(rank: int) -> None:
    adapter = LoRA(rank=rank, lora_alpha=5)
    scaling = 5 / rank
    net = nn.Sequential(nn.Conv2d(3, 4, 3, stride=2, padding=1), nn.Flatten(), nn.Linear(16, 5))
    conv, linear = (net.get_submodule(name) for name in ("0", "2"))
    adapted: Any = disturb(attached(adapter, net))
    images = torch.randn(2, 3, 4, 4)

    a, b = (adapted[2].get_parameter(f"lora_{x}.default.weight") for x in "AB")
    delta = scaling * torch.stack([sum(b[o, r] * a[r] for r in range(rank)) for o in range(5)])  # type: ignore[arg-type]
    rows = torch.randn(2, 16)
    assert torch.allclose(adapted[2](rows), rows @ (linear.weight + delta).T + linear.bias, atol=1e-5)  # type: ignore[operator]

    a, b = (adapted[0].get_parameter(f"lora_{x}.default.weight") for x in "AB")
    delta = scaling * torch.einsum("or,rchw->ochw", b[:, :, 0, 0], a)
    expected = nn.functional.conv2d(images, conv.weight + delta, conv.bias, 2, 1)  # type: ignore[arg-type,operator]
    assert torch.allclose(adapted[0](images), expected, atol=1e-5)
    assert torch.allclose(adapter.fold(adapted)(images), adapted(images), atol=1e-5)


@pytest.mark.parametrize(
    "adapter", [LoRA(rank=3, lora_alpha=5), AdaLoRA(init_rank=3, target_rank=1)], ids=str
)
def test_packed_attention_is_the_formula(adapter: LoRA | AdaLoRA) -> None:
    net = nn.ModuleDict({"attn": nn.MultiheadAttention(8, 2, batch_first=True)})
    adapted: Any = disturb(attached(adapter, net))["attn"]
    plain = copy.deepcopy(adapted.inner)
    with torch.no_grad():
        for weight, part in (
            (plain.in_proj_weight, adapted.in_proj),
            (plain.out_proj.weight, adapted.out_proj),
        ):
            inside = torch.diag(part.lora_E[:, 0]) if hasattr(part, "lora_E") else torch.eye(3)
            weight.add_(part.lora_B @ inside @ part.lora_A * adapter.lora_alpha / 3)
    tokens = torch.randn(2, 5, 8)
    for grad in (True, False):
        with torch.set_grad_enabled(grad):
            assert torch.allclose(
                adapted(tokens, tokens, tokens)[0], plain(tokens, tokens, tokens)[0], atol=1e-5
            )
    assert set(adapter.controller(net).ranks()) == {"attn.in_proj", "attn.out_proj"}


@pytest.mark.parametrize("build", [resnet8, lambda: SmallViT(16, dim=16, depth=1, num_heads=2)])
def test_folds_as_peft_does(build: Any) -> None:
    import peft

    adapter = LoRA(rank=2, lora_alpha=3)
    backbone = disturb(attached(adapter, build()))
    names = [name for name, module in backbone.named_modules() if hasattr(module, "base_layer")]
    theirs = peft.get_peft_model(
        build(),
        peft.LoraConfig(r=2, lora_alpha=3, target_modules=r"|".join(n.replace(".", r"\.") for n in names)),
    )
    theirs.base_model.model.load_state_dict(backbone.state_dict())
    merged, folded = theirs.merge_and_unload().state_dict(), adapter.fold(backbone).state_dict()
    assert merged.keys() == folded.keys()
    assert all(torch.equal(merged[name], folded[name]) for name in merged)


def test_adapts_the_chosen_kinds() -> None:
    def layers(*kinds: Any) -> set[str]:
        adapter = LoRA(layers=kinds, rank=2)
        return set(adapter.controller(attached(adapter, SmallViT(16, dim=16, depth=1, num_heads=2))).ranks())

    assert layers("attention") == {"blocks.0.attn.qkv", "blocks.0.attn.proj"}
    assert layers("linear") == {"blocks.0.mlp.fc1", "blocks.0.mlp.fc2"}
    assert layers("conv") == {"patch_embed"}
    with pytest.raises(
        ModelError, match=r"'lora' adapts dense layers of the kinds attention, and this .* has none"
    ):
        LoRA(layers=("attention",)).attach(resnet8())
    grouped = nn.Sequential(nn.Conv2d(4, 4, 3, groups=2), nn.Conv2d(4, 4, 3, dilation=2), nn.Conv2d(4, 4, 1))
    assert LoRA().controller(attached(LoRA(), grouped)).ranks() == {"2": 8}


def test_dropout_is_for_training_only() -> None:
    backbone = disturb(
        attached(LoRA(dropout=0.5), nn.Sequential(nn.Linear(6, 10), nn.Tanh(), nn.Linear(10, 5)))
    )
    rows = torch.randn(4, 6)
    assert torch.equal(backbone(rows), backbone(rows))
    backbone.train()
    assert not torch.equal(backbone(rows), backbone(rows))


def test_runs_in_bf16() -> None:
    vit = disturb(attached(LoRA(rank=2), SmallViT(16, dim=16, depth=1, num_heads=2)))
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.isfinite(vit(torch.rand(2, 3, 16, 16)).float()).all()


def test_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(ModelError, match=r"pip install 'temper\[peft\]'"):
        LoRA().attach(resnet8())
