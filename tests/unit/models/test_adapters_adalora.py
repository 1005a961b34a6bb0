"""AdaLoRA's ranks: against peft and the paper, and across interruptions."""

import copy
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import load, save
from torch import Tensor, nn

from temper.errors import ModelError
from temper.models.adapters import AdaLoRA, AdapterController, LoRA
from temper.models.adapters.allocation import RankSchedule
from temper.models.small_resnet import resnet8

TOTAL_STEPS = 20
ADALORA = AdaLoRA(
    init_rank=4, target_rank=2, tinit_frac=0.2, tfinal_frac=0.3, every_steps=2, layers=("linear",)
)


class Mlp(nn.Module):
    """Three linear layers of different widths."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(6, 10), nn.Tanh(), nn.Linear(10, 8), nn.Tanh(), nn.Linear(8, 5))

    def forward(self, rows: Tensor) -> Tensor:
        features: Tensor = self.body(rows)
        return features


def attached(adapter: LoRA | AdaLoRA, backbone: nn.Module) -> nn.Module:
    torch.manual_seed(0)
    for parameter in backbone.parameters():
        nn.init.normal_(parameter, std=0.3)
    adapter.attach(backbone)
    trained = adapter.trained_names(backbone)
    for name, parameter in backbone.named_parameters():
        parameter.requires_grad_(name in trained)
    return backbone.eval()


def train(
    backbone: nn.Module, controller: Any, steps: range, frozen: dict[int, str] | None = None
) -> torch.optim.Optimizer:
    """Plain gradient descent on data that depends on the step alone."""
    trained = [parameter for parameter in backbone.parameters() if parameter.requires_grad]
    optimizer = torch.optim.SGD(trained, lr=0.1)
    for step in steps:
        generator = torch.Generator().manual_seed(step)
        rows, goal = torch.randn(16, 6, generator=generator), torch.randn(16, 5, generator=generator)
        for name, parameter in backbone.named_parameters():
            if "lora_" in name:
                parameter.requires_grad_((frozen or {}).get(step, "none") not in name)
        loss = (backbone(rows) - goal).square().mean()
        if isinstance(controller, AdapterController) and (extra := controller.regularization()) is not None:
            loss = loss + extra
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        if isinstance(controller, AdapterController):
            controller.after_step(step)
        else:
            controller.update_and_allocate(step)
    return optimizer


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"init_rank": 4, "target_rank": 8}, "target_rank is at most init_rank, got 8 and 4"),
        ({"tinit_frac": 0.5, "tfinal_frac": 0.5}, "no step is left"),
        ({"layers": ()}, "at least 1"),
        ({"layers": ("conv", "conv")}, "at most once"),
    ],
)
def test_refuses_settings_that_cannot_be(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        AdaLoRA(**fields)


def test_allocates_as_peft_does() -> None:
    import peft
    from peft.tuners.adalora import AdaLoraModel

    adapter = ADALORA.model_copy(update={"orth_weight": 0.0})
    ours = attached(adapter, Mlp())
    config = peft.AdaLoraConfig(
        init_r=4, target_r=2, tinit=4, tfinal=6, deltaT=2, total_step=TOTAL_STEPS, lora_alpha=16,
        target_modules=r"body\.[024]",
    )  # fmt: skip
    model = Mlp()
    theirs = AdaLoraModel(model, config, "default")
    model.load_state_dict(ours.state_dict())
    controller = adapter.controller(ours)
    controller.begin(TOTAL_STEPS)
    for step in range(TOTAL_STEPS):
        train(ours, controller, range(step, step + 1))
        train(model, theirs, range(step, step + 1))
        state = model.state_dict()
        for name, value in ours.state_dict().items():
            assert torch.allclose(state[name], value, atol=1e-6), f"{name} differs after step {step}"
    pattern = {name.split(".lora_E")[0]: sum(kept) for name, kept in config.rank_pattern.items()}
    assert controller.ranks() == pattern


@pytest.mark.parametrize("tfinal_frac", [0.0, 0.3])
@pytest.mark.parametrize("build", [Mlp, resnet8])
def test_ends_with_the_budget(build: Any, tfinal_frac: float) -> None:
    adapter = AdaLoRA(init_rank=4, target_rank=2, tinit_frac=0.2, tfinal_frac=tfinal_frac, every_steps=3)
    backbone = attached(adapter, build())
    controller = adapter.controller(backbone)
    num_layers = len(controller.ranks())
    assert set(controller.ranks().values()) == {4}
    controller.begin(TOTAL_STEPS)
    trained = [parameter for parameter in backbone.parameters() if parameter.requires_grad]
    rows = torch.randn(16, 6) if build is Mlp else torch.rand(4, 3, 8, 8)
    totals = []
    optimizer = torch.optim.AdamW(trained, lr=0.01)
    for step in range(TOTAL_STEPS):
        optimizer.zero_grad()
        (backbone(rows) - torch.arange(len(rows)).unsqueeze(1)).square().mean().backward()
        optimizer.step()
        controller.after_step(step)
        totals.append(sum(controller.ranks().values()))
    assert totals == sorted(totals, reverse=True)
    assert totals[0] == 4 * num_layers
    assert totals[-1] == 2 * num_layers
    alive = {
        name.split(".lora_E")[0]: int((p != 0).sum())
        for name, p in backbone.named_parameters()
        if "_E" in name
    }
    assert controller.ranks() == alive
    assert len(set(alive.values())) > 1


def test_budget_falls_as_the_papers_cubic() -> None:
    schedule = RankSchedule(init_rank=12, target_rank=8, tinit_frac=0.1, tfinal_frac=0.2, every_steps=10)
    budgets = {step: schedule.budget(step, 1000, num_layers=5) for step in range(1000)}
    assert {step for step, budget in budgets.items() if budget is None} >= set(range(101))
    for step in range(110, 800, 10):
        assert budgets[step] == int(40 + 20 * (1 - (step - 100) / 700) ** 3)
    assert {budgets[step] for step in range(800, 1000)} == {40}
    assert schedule.budget(0, 1, num_layers=5) == 40


@pytest.mark.parametrize("stop", [1, 5, 9, 14, 17])
def test_resumes_bit_for_bit(stop: int) -> None:
    def start() -> tuple[nn.Module, AdapterController]:
        backbone = attached(ADALORA, Mlp())
        controller = ADALORA.controller(backbone)
        controller.begin(TOTAL_STEPS)
        return backbone, controller

    whole, controller = start()
    train(whole, controller, range(TOTAL_STEPS))

    first, its_controller = start()
    train(first, its_controller, range(stop))
    weights, state = save(first.state_dict()), save(its_controller.state_dict())
    second, its_controller = start()
    second.load_state_dict(load(weights))
    its_controller.load_state_dict(load(state))
    train(second, its_controller, range(stop, TOTAL_STEPS))
    assert all(torch.equal(value, second.state_dict()[name]) for name, value in whole.state_dict().items())
    assert its_controller.ranks() == controller.ranks()


def test_copes_with_frozen_layers() -> None:
    backbone = attached(ADALORA, Mlp())
    controller = ADALORA.controller(backbone)
    controller.begin(TOTAL_STEPS)
    train(backbone, controller, range(TOTAL_STEPS), frozen=dict.fromkeys(range(TOTAL_STEPS), "body.0"))
    assert controller.ranks()["body.0"] == 0, "what never trained is worth nothing"
    assert sum(controller.ranks().values()) == 6
    assert not backbone.get_parameter("body.0.lora_E.default").any()

    backbone = attached(ADALORA, Mlp())
    controller = ADALORA.controller(backbone)
    controller.begin(TOTAL_STEPS)
    train(backbone, controller, range(TOTAL_STEPS), frozen=dict.fromkeys(range(8), "body.0"))
    assert controller.ranks()["body.0"] > 0, "what trains later can win ranks back"


def test_keeps_the_budget_where_all_scores_are_equal() -> None:
    backbone = attached(ADALORA, Mlp())
    controller = ADALORA.controller(backbone)
    controller.begin(TOTAL_STEPS)
    for step in range(TOTAL_STEPS):
        controller.after_step(step)
    assert controller.ranks() == {"body.0": 4, "body.2": 2, "body.4": 0}


def test_regularization_is_the_distance_from_orthogonality() -> None:
    backbone = attached(ADALORA, Mlp())
    controller = ADALORA.controller(backbone)
    values = [
        ((p @ p.T if "_A" in name else p.T @ p) - torch.eye(4)).square().sum().sqrt()
        for name, p in backbone.named_parameters()
        if "lora_A" in name or "lora_B" in name
    ]
    regularization = controller.regularization()
    assert regularization is not None
    assert torch.allclose(regularization, 0.5 * sum(values) / len(values))
    backbone.requires_grad_(False)
    assert controller.regularization() is None
    assert LoRA().controller(backbone).regularization() is None


def test_a_copy_of_model_and_controller_is_on_its_own() -> None:
    backbone = attached(ADALORA, Mlp())
    holder = {"backbone": backbone, "controller": ADALORA.controller(backbone)}
    holder["controller"].begin(TOTAL_STEPS)  # type: ignore[union-attr,operator]
    train(backbone, holder["controller"], range(7))
    twin: Any = copy.deepcopy(holder)
    before = {name: value.clone() for name, value in backbone.state_dict().items()}
    train(twin["backbone"], twin["controller"], range(7, TOTAL_STEPS))
    assert all(torch.equal(value, before[name]) for name, value in backbone.state_dict().items())
    train(backbone, holder["controller"], range(7, TOTAL_STEPS))
    assert all(
        torch.equal(v, twin["backbone"].state_dict()[name]) for name, v in backbone.state_dict().items()
    )


def test_refuses_the_state_of_another() -> None:
    controller = ADALORA.controller(attached(ADALORA, Mlp()))
    with pytest.raises(ModelError, match="belongs to another adapter or backbone"):
        controller.load_state_dict({"kept/body.9": torch.ones(4, 1, dtype=torch.bool)})
    with pytest.raises(ModelError, match="the state belongs to another one"):
        AdapterController().load_state_dict(controller.state_dict())
