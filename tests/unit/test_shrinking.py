"""Auto-PGD from far outside the ball."""

from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from temper.attacks import ShrinkingAPGD
from temper.spec import Threat

EPS = 4.0


@pytest.fixture(scope="module")
def case() -> tuple[torch.nn.Module, Tensor, Tensor]:
    torch.manual_seed(0)
    model = torch.nn.Sequential(
        torch.nn.Flatten(), torch.nn.Linear(48, 16), torch.nn.ReLU(), torch.nn.Linear(16, 6)
    ).eval()
    images = torch.rand(40, 3, 4, 4)
    return model, images, model(images).argmax(1)


@pytest.mark.parametrize("settings", [{}, {"loss": "dlr"}, {"loss": "dlr", "num_goals": 5}])
def test_what_it_returns_lies_in_the_ball_and_fools(case: Any, settings: dict[str, Any]) -> None:
    model, images, labels = case
    attack = ShrinkingAPGD.model_validate({"steps": 30, **settings})
    found = attack.run(model, images, labels, Threat(norm="l1", eps=EPS), seed=0)
    assert found.min() >= 0
    assert found.max() <= 1
    assert (found - images).abs().flatten(1).sum(1).max() <= EPS * (1 + 1e-5)
    assert (model(found).argmax(1) != labels).float().mean() > 0.2
    again = attack.run(model, images, labels, Threat(norm="l1", eps=EPS), seed=0)
    assert torch.equal(found, again)


def test_goals_stop_at_the_first_that_is_reached(case: Any) -> None:
    model, images, labels = case
    asked = []

    def counted(points: Tensor) -> Tensor:
        asked.append(len(points))
        logits: Tensor = model(points)
        return logits

    attack = ShrinkingAPGD(steps=30, loss="margin", num_goals=5)
    attack.perturb(counted, images, labels, Threat(norm="l1", eps=40.0), torch.Generator().manual_seed(0))
    one = sum(asked)
    asked.clear()
    attack.perturb(counted, images, labels, Threat(norm="l1", eps=1e-3), torch.Generator().manual_seed(0))
    assert sum(asked) > 4 * one


@pytest.mark.parametrize("goals", [0, 9])
def test_few_classes_get_the_margin(goals: int) -> None:
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 2)).eval()
    images = torch.full((3, 3, 2, 2), 0.5)
    labels = model(images).argmax(1)
    member = ShrinkingAPGD(loss="dlr", num_goals=goals, steps=10)
    found = member.run(model, images, labels, Threat(norm="l1", eps=6.0), 0)
    assert (model(found).argmax(1) != labels).all()
    with pytest.raises(ValidationError, match="num_goals"):
        ShrinkingAPGD(num_goals=-1)
