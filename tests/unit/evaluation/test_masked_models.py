"""No mask makes a model robust: an evaluation breaks it, or is blocked by the gate that fits."""

import copy
import importlib
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from temper.evaluation import CascadePlan, Evaluation, EvaluationPlan, evaluate_images, suite_for
from temper.spec import Threat

NUM_TRAIN, NUM_IMAGES = 1200, 48
MARGIN = 0.02
"""Of robust accuracy above the bare network's, from which on a mask has not been broken."""


masked = importlib.import_module("masked_models")

CAUGHT_BY = {
    "quantised input (8 shades)": "zero gradients",
    "saturated logits (100 tanh z)": "logits not cut off",
    "clamped logits (z in -4..4)": "logits not cut off",
    "random layer": "deterministic forward",
    "gradient cut by `detach()`": "zero gradients",
    "gradient zeroed by a hook": "zero gradients",
    "BatchNorm in training mode": "eval mode",
    "BatchNorm without running statistics": "one image at a time",
    "logits times 10,000": None,
    "4 bits through NumPy": "zero gradients",
    "median filter through NumPy": "zero gradients",
    "probabilities as output": "logits",
    "normalised outside to [-1,1]": "normalization inside",
    "pixels of 0..255 expected": "normalization inside",
    "anti-adversary layer, 2 steps": "without its front",
    "anti-adversary layer, 10 steps": "without its front",
    "anti-adversary layer out of sight": "without its front",
    "memory of what was asked": "memory",
    "memory outside of the module": "memory",
    "count of what was asked": None,
    "noise that follows from the image": None,
    "JPEG through Pillow": "without its front",
    "a fine sine over the pixels": "without its front",
    "steep tanh before the first layer": "without its front",
    "gradient reversed": "huge eps",
    "gradient replaced by noise": "black box",
    "gradient mirrored": "black box",
    "gradient of one row alone": "black box",
    "gradient not a number": "zero gradients",
    "classes as one and zero": "zero gradients",
    "logits rounded to halves": "zero gradients",
    "logits divided by 1e30": None,
    "probabilities times 10": None,
    "log-probabilities (no mask)": None,
}
"""Mask -> the gate that must block it; ``None``: it must be broken, and nothing else is wrong with it."""


@pytest.fixture(scope="module")
def bare() -> Any:
    images, labels = masked.load_digits()
    return masked.train(images[:NUM_TRAIN], labels[:NUM_TRAIN], epochs=4)


def evaluate(model: nn.Module) -> Evaluation:
    images, labels = (part[NUM_TRAIN:][:NUM_IMAGES] for part in masked.load_digits())
    threat = Threat(eps=masked.EPS)
    plan = EvaluationPlan(main=CascadePlan(threat=threat, suite=suite_for("quick", "linf")), seed=0)
    names = [str(digit) for digit in range(10)]
    return evaluate_images(model, images, labels, np.arange(NUM_IMAGES), classes=names, plan=plan)


def failed(evaluation: Evaluation) -> list[str]:
    return [gate.name for gate in evaluation.gates if not gate.passed]


@pytest.fixture(scope="module")
def honest(bare: Any) -> Evaluation:
    return evaluate(bare)


def test_the_bare_network_is_not_robust_and_not_blocked(honest: Evaluation) -> None:
    assert failed(honest) == []
    assert honest.clean_acc.value > 0.9
    assert honest.robust_acc.value <= MARGIN


def test_every_mask_is_expected_somewhere() -> None:
    assert set(CAUGHT_BY) == set(masked.MASKS)


@pytest.mark.long
@pytest.mark.parametrize("name", list(CAUGHT_BY))
def test_a_mask_is_caught_or_broken(bare: Any, honest: Evaluation, name: str) -> None:
    torch.manual_seed(0)
    evaluation = evaluate(masked.MASKS[name](copy.deepcopy(bare)).eval())
    expected = CAUGHT_BY[name]
    if expected is None:
        assert failed(evaluation) == []
        assert evaluation.robust_acc.value <= honest.robust_acc.value + MARGIN
    else:
        assert evaluation.status == "blocked"
        assert expected in failed(evaluation)


class Rounded(nn.Module):
    """Linear, of images in eight shades."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(192, 10)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.linear(((images * 7).round() / 7).flatten(1))


def traced(model: nn.Module) -> nn.Module:
    return torch.jit.trace(model, torch.rand(2, 3, 8, 8))  # type: ignore[no-untyped-call,no-any-return]


@pytest.mark.parametrize("compiled", [torch.jit.script, traced])
@pytest.mark.filterwarnings("ignore")  # TorchScript is deprecated; people have such files
def test_modules_of_torchscript_are_judged_too(compiled: Any) -> None:
    """They take no hooks, and their copies' parameters are no leaves."""
    images, labels = (torch.from_numpy(part[:NUM_TRAIN]) for part in masked.load_digits())
    model = Rounded()
    solved = torch.linalg.lstsq(
        images.flatten(1).float() / 255, nn.functional.one_hot(labels).float(), driver="gelsd"
    )
    model.linear.load_state_dict({"weight": solved.solution.T, "bias": torch.zeros(10)})
    evaluation = evaluate(compiled(model.eval()))
    gates = {gate.name: gate for gate in evaluation.gates}
    assert evaluation.clean_acc.value > 0.5
    assert not gates["zero gradients"].passed
    assert gates["memory"].passed
