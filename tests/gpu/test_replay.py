"""Passes that are recorded as CUDA graphs and replayed: the same answers, whatever is asked in what order."""

import copy
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from temper.attacks import PGD, attack_mode
from temper.data import Images
from temper.models import (
    ForwardPass,
    ModelSpec,
    ReplayedFeatures,
    ReplayedModel,
    TaskModel,
    build_model,
    folded_model,
)

pytestmark = pytest.mark.filterwarnings("ignore:Attempting to run cuBLAS")
CLASSES = {"target": [str(digit) for digit in range(10)], "source": ["x", "y"]}


@pytest.fixture
def batch(images: Images, cuda: torch.device) -> tuple[Tensor, Tensor]:
    pixels = torch.from_numpy(images.images[:64]).to(cuda).float() / 255
    return pixels, torch.from_numpy(images.labels[:64]).to(cuda)


@pytest.fixture
def model_of(cuda: torch.device) -> Callable[..., TaskModel]:
    def build(backbone: str, *, is_bf16: bool = False) -> TaskModel:
        model = build_model(ModelSpec(backbone=backbone), CLASSES, image_size=32, seed=0).to(cuda)
        model.to(memory_format=torch.channels_last)
        model.is_bf16 = is_bf16
        return model.eval()

    return build


def answers(model: nn.Module, images: Tensor, labels: Tensor, task: str = "target") -> tuple[Tensor, Tensor]:
    points = images.detach().requires_grad_()
    logits = model(points, task)
    return logits.detach(), torch.autograd.grad(F.cross_entropy(logits, labels % logits.shape[1]), points)[0]


def assert_same(one: tuple[Tensor, Tensor], other: tuple[Tensor, Tensor]) -> None:
    assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))
    assert one[1].abs().max() > 0


@pytest.mark.parametrize("is_bf16", [False, True])
@pytest.mark.parametrize("backbone", ["resnet8", "preact_resnet18", "small_vit", "resnet18"])
def test_logits_and_gradients_are_the_same_bits(
    model_of: Callable[..., TaskModel], batch: tuple[Tensor, Tensor], backbone: str, is_bf16: bool
) -> None:
    model = model_of(backbone, is_bf16=is_bf16)
    with attack_mode(model):
        twin = folded_model(model, batch[0][:4])
        assert (twin is None) == (backbone == "small_vit")
        attacked = twin or model
        replayed = ReplayedModel(attacked)
        assert_same(answers(replayed, *batch), answers(attacked, *batch))
        assert replayed.num_recordings == 1
        # Weights that change in place are followed; what is asked about another task is recorded too.
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.mul_(1.01)
        if twin is not None:
            twin.refresh()
        replayed.refresh()
        assert_same(answers(replayed, *batch), answers(attacked, *batch))
        assert_same(answers(replayed, *batch, "source"), answers(attacked, *batch, "source"))
        assert replayed.num_recordings == 2


def test_other_shapes_go_through_the_model(
    model_of: Callable[..., TaskModel], batch: tuple[Tensor, Tensor]
) -> None:
    model, (images, labels) = model_of("resnet8"), batch
    with attack_mode(model):
        replayed = ReplayedModel(model)
        assert_same(answers(replayed, images, labels), answers(model, images, labels))
        assert_same(answers(replayed, images[:7], labels[:7]), answers(model, images[:7], labels[:7]))
        assert torch.equal(replayed(images), model(images))  # without a gradient
        assert replayed.num_recordings == 1


def test_the_way_back_from_two_answers(
    model_of: Callable[..., TaskModel], batch: tuple[Tensor, Tensor]
) -> None:
    """Two passes forward, and only then back: the first one's activations are overwritten by then."""
    model, (images, labels) = model_of("resnet8"), batch
    with attack_mode(model):
        replayed = ReplayedModel(model)
        both = [points.detach().requires_grad_() for points in (images, 1 - images)]
        losses = [F.cross_entropy(replayed(points, "target"), labels) for points in both]
        mine = torch.autograd.grad(losses[0] + losses[1], both)
        expected = [answers(model, points, labels)[1] for points in both]
        assert [float((a - b).abs().max()) for a, b in zip(mine, expected, strict=True)] == [0, 0]
        assert replayed.num_recordings == 1


def test_an_attack_finds_the_same_points(
    model_of: Callable[..., TaskModel], batch: tuple[Tensor, Tensor], cuda: torch.device
) -> None:
    model, (images, labels) = model_of("resnet8"), batch
    attack = PGD(eps=8 / 255, steps=5)
    with attack_mode(model):
        found = [
            attack.perturb(one, images, labels, torch.Generator(cuda).manual_seed(1))
            for one in (lambda points: ReplayedModel(model)(points, "target"), model)
        ]
    assert torch.equal(*found)
    assert 0 < (found[0] - images).abs().max() <= 8 / 255 + 1e-6


def test_weights_that_moved_are_noticed(
    model_of: Callable[..., TaskModel], batch: tuple[Tensor, Tensor]
) -> None:
    model = model_of("resnet8")
    with attack_mode(model):
        replayed = ReplayedModel(model)
        replayed.refresh()
        answers(replayed, *batch)
        for parameter in model.parameters():
            parameter.data = parameter.data * 1.5
        replayed.refresh()
        assert replayed.num_recordings == 0
        assert_same(answers(replayed, *batch), answers(model, *batch))


class Waiting(nn.Module):
    """Looks at its images: nothing that a graph could do."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor, task: str) -> Tensor:
        logits: Tensor = self.model(images if float(images.detach().mean()) > 0 else -images, task)
        return logits


class Drawing(Waiting):
    """Adds noise, and so answers otherwise each time."""

    def forward(self, images: Tensor, task: str) -> Tensor:
        logits: Tensor = self.model(images + 0.1 * torch.rand_like(images), task)
        return logits


class Counting(Waiting):
    """Answers its second call otherwise: what no recording can follow."""

    calls = 0

    def forward(self, images: Tensor, task: str) -> Tensor:
        self.calls += 1
        logits: Tensor = self.model(images * (1 + 0.1 * (self.calls % 2)), task)
        return logits


def test_what_cannot_be_recorded_is_attacked_itself(
    model_of: Callable[..., TaskModel], batch: tuple[Tensor, Tensor], cuda: torch.device
) -> None:
    model = Waiting(model_of("resnet8"))
    with attack_mode(model):
        replayed = ReplayedModel(model)
        assert_same(answers(replayed, *batch), answers(model, *batch))
        assert replayed.num_recordings == 0
    # A failed recording leaves PyTorch unable to draw, but for what we do about it.
    torch.cuda.manual_seed(3)
    drawn = torch.rand(5, device=cuda)
    torch.cuda.manual_seed(3)
    assert torch.equal(drawn, torch.rand(5, device=cuda))


def test_what_draws_draws_as_it_would(
    model_of: Callable[..., TaskModel], batch: tuple[Tensor, Tensor]
) -> None:
    model, found = Drawing(model_of("resnet8")), []
    with attack_mode(model):
        replayed = ReplayedModel(model)
        for one in (replayed, model):
            torch.cuda.manual_seed(5)
            found.append([answers(one, *batch) for _ in range(3)])
    assert replayed.num_recordings == 1
    for mine, expected in zip(*found, strict=True):
        assert_same(mine, expected)
    assert not torch.equal(found[0][0][0], found[0][1][0])


def test_what_answers_otherwise_each_time_is_not_recorded(
    model_of: Callable[..., TaskModel], batch: tuple[Tensor, Tensor]
) -> None:
    model = Counting(model_of("resnet8"))
    with attack_mode(model):
        replayed = ReplayedModel(model)
        answers(replayed, *batch)
        assert replayed.num_recordings == 0


def test_features_in_training(
    model_of: Callable[..., TaskModel], batch: tuple[Tensor, Tensor], cuda: torch.device
) -> None:
    """The same bits of features, gradients and statistics, with dropout and without a cached cast."""
    model, (images, labels) = model_of("preact_resnet18", is_bf16=True), batch
    model.backbone = nn.Sequential(model.backbone, nn.Dropout(0.3))
    start = {name: value.clone() for name, value in model.state_dict().items()}
    ended = []
    for is_replayed in (False, True):
        model.load_state_dict(start)
        model.train()
        model.replayed = ReplayedFeatures(model) if is_replayed else None
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        for step in range(3):
            torch.cuda.manual_seed(step)
            optimizer.zero_grad()
            for part in (images[:32], images[32:]):  # gradients of two parts are added
                (logits,) = model([ForwardPass({"target": part})])
                F.cross_entropy(logits["target"], labels[:32]).backward()
            optimizer.step()
        ended.append({name: value.clone() for name, value in model.state_dict().items()})
    assert isinstance(model.replayed, ReplayedFeatures)
    assert model.replayed.is_recorded
    assert [name for name in start if not torch.equal(ended[0][name], ended[1][name])] == []
    assert not torch.equal(start["backbone.0.conv1.weight"], ended[0]["backbone.0.conv1.weight"])


def test_of_two_passes_at_once_one_is_replayed(
    model_of: Callable[..., TaskModel], batch: tuple[Tensor, Tensor]
) -> None:
    model, (images, labels) = model_of("resnet8").train(), batch
    passes = [ForwardPass({"target": images}), ForwardPass({"target": 1 - images})]
    found = []
    for replayed in (None, ReplayedFeatures(model)):
        model.replayed = replayed
        model.zero_grad()
        first, second = model(passes)
        (F.cross_entropy(first["target"], labels) + F.mse_loss(second["target"], first["target"])).backward()
        found.append([parameter.grad.clone() for parameter in model.backbone.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))
    assert copy.deepcopy(model).replayed is None
