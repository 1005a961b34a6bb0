"""The twin that attacks see: the model's answers and gradients, whatever became of its weights meanwhile."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from temper.attacks import attack_mode
from temper.models import ModelSpec, TaskModel, build_model, folded_model

CLASSES = {"target": ["a", "b", "c"], "source": ["d", "e"]}
ADAPTERS: list[Any] = [None, {"kind": "norm_bias"}]


def network(backbone: str, adapter: Any = None) -> TaskModel:
    spec = ModelSpec.model_validate({"backbone": backbone, "adapter": adapter})
    return build_model(spec, CLASSES, image_size=32, seed=0)


def images(count: int, seed: int = 0) -> Tensor:
    return torch.rand(count, 3, 32, 32, generator=torch.Generator().manual_seed(seed))


def train_a_little(model: TaskModel) -> None:
    """Steps that move weights, statistics and, where it has one, the adapter."""
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.05)
    model.controller.begin(3)
    for step in range(3):
        model.train()
        optimizer.zero_grad()
        F.cross_entropy(model(images(16, step)), torch.arange(16) % 3).backward()
        optimizer.step()
        model.controller.after_step(step)
    model.eval()


def gradient(model: nn.Module, batch: Tensor) -> Tensor:
    batch = batch.clone().requires_grad_()
    loss = F.cross_entropy(model(batch), torch.zeros(len(batch), dtype=torch.int64), reduction="sum")
    return torch.autograd.grad(loss, batch)[0]


@pytest.mark.parametrize("adapter", ADAPTERS, ids=lambda adapter: str(adapter and adapter["kind"]))
def test_a_refreshed_twin_follows_the_weights(adapter: Any) -> None:
    model, batch = network("resnet8", adapter).eval(), images(8)
    twin = folded_model(model, batch[:4])
    assert twin is not None
    before = twin.module(batch)
    train_a_little(model)
    twin.refresh()
    with attack_mode(model):
        assert torch.allclose(twin.module(batch), model(batch), atol=1e-5)
        assert torch.allclose(gradient(twin.module, batch), gradient(model, batch), atol=1e-5)
        assert not torch.allclose(twin.module(batch), before, atol=1e-3)


@pytest.mark.parametrize(
    ("backbone", "num_left"),
    [("resnet8", 0), ("resnet20", 0), ("resnet18", 0), ("preact_resnet18", 9), ("cifar_resnet56", 0)],
)
def test_every_batch_norm_behind_a_convolution_is_folded(backbone: str, num_left: int) -> None:
    model = network(backbone).eval()
    twin = folded_model(model, images(4))
    assert twin is not None
    left = [module for module in twin.module.modules() if isinstance(module, nn.BatchNorm2d)]
    assert len(left) == num_left


@pytest.mark.parametrize("name", ["test_efficientnet", "tf_efficientnet_lite0"])
def test_batch_norm_of_timm_is_folded_with_its_activation_left(name: str) -> None:
    """Of the second, strided convolutions pad as TensorFlow's do."""
    pytest.importorskip("timm")
    model = network(f"timm/{name}")
    model(images(8))  # moves the statistics
    # In float32 a unit next to nothing may be on in one of them and off in the other.
    model.double().eval()
    batch = images(4).double()
    with attack_mode(model):
        twin = folded_model(model, batch)
        assert twin is not None
        assert not [part for part in twin.modules() if isinstance(part, nn.BatchNorm2d)]
        assert torch.allclose(twin(batch), model(batch), rtol=0, atol=1e-9)
        expected = gradient(model, batch)
        assert torch.allclose(
            gradient(twin, batch), expected, rtol=0, atol=1e-9 * float(expected.abs().max())
        )
        with torch.no_grad():
            model.get_parameter("backbone.conv_stem.weight").mul_(1.1)
        twin.refresh()
        assert torch.allclose(twin(batch), model(batch), rtol=0, atol=1e-9)


def test_the_twin_shares_what_is_not_folded_and_leaves_the_model_alone() -> None:
    model = network("resnet8").eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    twin = folded_model(model, images(4))
    assert twin is not None
    assert twin.module.get_parameter("heads.target.weight") is model.get_parameter("heads.target.weight")
    assert model.state_dict().keys() == before.keys()
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_a_twin_in_bf16_answers_alike() -> None:
    model = network("resnet8").eval()
    model.is_bf16 = True
    twin = folded_model(model, images(4))
    assert twin is not None
    assert getattr(twin.module, "is_bf16", False)


def test_a_twin_in_bf16_casts_its_weights_once_and_follows_them() -> None:
    """Those of every convolution, folded or not; the answers are those of a cast in each pass."""
    model, batch = network("preact_resnet18"), images(4)
    train_a_little(model)
    model.is_bf16 = True
    with attack_mode(model):
        twin = folded_model(model, batch)
        assert twin is not None
        convolutions = [part for part in twin.modules() if isinstance(part, nn.Conv2d)]
        assert {part.weight.dtype for part in convolutions} == {torch.bfloat16}
        assert {part.weight.dtype for part in model.modules() if isinstance(part, nn.Conv2d)} == {
            torch.float32
        }
        stem, own = model.get_submodule("backbone.conv1"), twin.module.get_submodule("backbone.conv1")
        with torch.no_grad():
            stem.weight.mul_(1.1)
        assert not torch.equal(own.weight, stem.weight.bfloat16())
        twin.refresh()
        assert torch.equal(own.weight, stem.weight.bfloat16())
        assert own.weight.stride() == stem.weight.stride()


@pytest.mark.parametrize(("backbone", "at_once"), [("resnet8", 10), ("resnet18", 40)])
def test_a_large_batch_goes_through_in_slices_and_is_answered_the_same(
    monkeypatch: pytest.MonkeyPatch, backbone: str, at_once: int
) -> None:
    """A stem of stride 2 leaves a quarter of the positions: a slice holds four times as many images."""
    monkeypatch.setattr("temper.models.folding.SLICE", 10 * 32 * 32 // torch.get_num_threads())
    model, batch = network(backbone).eval(), images(45)
    twin = folded_model(model, batch[:4])
    assert twin is not None
    sizes: list[int] = []
    twin.module.register_forward_pre_hook(lambda _, inputs: sizes.append(len(inputs[0])))
    with attack_mode(model):
        # Bit for bit on most processors; another size of a batch may be computed in another order.
        assert torch.allclose(twin(batch), twin.module(batch), atol=1e-6)
        assert sizes == [at_once] * (45 // at_once) + [45 % at_once, 45]
        assert torch.allclose(gradient(twin, batch), gradient(twin.module, batch), atol=1e-6)


class Doubled(nn.Module):
    """One convolution and one BatchNorm, called twice: folding them would be right for neither call."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 3, 3, padding=1), nn.BatchNorm2d(3)
        self.head = nn.Linear(3, 2)

    def forward(self, batch: Tensor) -> Tensor:
        once = self.norm(self.conv(batch))
        logits: Tensor = self.head(self.norm(self.conv(F.relu(once))).mean((2, 3)))
        return logits


def test_what_is_called_twice_is_not_folded() -> None:
    assert folded_model(Doubled().eval(), images(4)) is None


def test_lora_in_every_convolution_leaves_nothing_to_fold() -> None:
    assert folded_model(network("resnet8", {"kind": "lora", "rank": 2}).eval(), images(4)) is None


def test_a_vision_transformer_has_no_twin() -> None:
    """LayerNorm's statistics are those of each image: they cannot become weights."""
    assert folded_model(network("small_vit").eval(), images(4)) is None


@pytest.mark.parametrize(
    "backbone", ["timm/tf_efficientnet_lite0", "timm/efficientnet_lite0", "timm/test_efficientnet"]
)
def test_layers_of_timm_that_normalise_and_activate_are_folded(backbone: str) -> None:
    pytest.importorskip("timm")
    model, batch = network(backbone).eval(), images(8)
    twin = folded_model(model, batch[:4])
    assert twin is not None
    norms = [part for part in model.modules() if isinstance(part, nn.BatchNorm2d)]
    assert len(twin._folds) == len(norms)
    train_a_little(model)
    twin.refresh()
    with attack_mode(model):
        assert torch.allclose(twin(batch), model(batch), atol=1e-4)
        own, theirs = gradient(twin, batch), gradient(model, batch)
        assert (own - theirs).norm() < 0.02 * theirs.norm()  # rounding moves a value past a kink of ReLU6


class Drifting(nn.Module):
    """Keeps a mean of what passes through it."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.LazyLinear(5))
        self.mean: Any = None

    def forward(self, batch: torch.Tensor) -> Any:
        mean = batch.mean(0, keepdim=True)
        self.mean = mean if self.mean is None else 0.9 * self.mean + 0.1 * mean
        return self.layers(batch)


def test_folding_leaves_nothing_in_the_model() -> None:
    """Tracing runs the forward with stand-ins for its images."""
    model = Drifting().eval()
    model(images(2))
    twin = folded_model(model, images(4))
    assert type(model.mean) is torch.Tensor
    assert twin is not None
    assert type(twin.module.mean) is torch.Tensor
