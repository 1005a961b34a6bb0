"""What a GPU needs of training, as far as a CPU can show it; tests/gpu has the rest."""

import copy
from typing import Any

import pytest
import torch
from safetensors.torch import load, save

from temper.errors import DivergenceError
from temper.models import (
    ForwardPass,
    ReplayedFeatures,
    StartStatistics,
    replayed_features,
    replayed_model,
)
from temper.optim import OptimSpec
from temper.training.compute import Compute, apply_compute
from temper.training.epoch import Tally
from temper.training.optimizer_state import load_optimizer, optimizer_tensors
from temper.training.state import Passes
from temper.training.worker import Worker


def test_an_optimizer_s_state_lies_in_memory_as_its_weights_do() -> None:
    """Files have it in the default layout, in which the fused kernels of a GPU refuse it."""
    weight = torch.nn.Parameter(torch.rand(8, 3, 3, 3).to(memory_format=torch.channels_last))
    optimizer = OptimSpec(kind="adamw", lr=0.1).build({"all": [weight]})
    weight.grad = torch.rand_like(weight)
    optimizer.step()
    written = load(save({n: t.contiguous() for n, t in optimizer_tensors(optimizer, ["weight"]).items()}))
    other = OptimSpec(kind="adamw", lr=0.1).build({"all": [weight]})
    load_optimizer(other, ["weight"], written)
    for slot in ("exp_avg", "exp_avg_sq"):
        assert other.state[weight][slot].stride() == weight.stride()
        assert torch.equal(other.state[weight][slot], optimizer.state[weight][slot])
    assert float(other.state[weight]["step"]) == 1


def test_what_stands_in_for_features_is_asked_in_training_alone(model: Any, batch: Any) -> None:
    images, calls = batch[0], []

    def replayed(images: torch.Tensor) -> torch.Tensor:
        calls.append(len(images))
        return model.features(images)

    model.replayed = replayed
    plain = model(images), model({"target": images, "source": images})
    assert calls == []
    statistics = StartStatistics(model)
    passes = [
        ForwardPass({"target": images, "source": images}),
        ForwardPass({"target": images}, statistics=statistics),
    ]
    answers = model(passes)
    assert calls == [2 * len(images)]
    assert torch.equal(answers[0]["source"], plain[1]["source"])
    assert copy.deepcopy(ReplayedFeatures(model)) is None
    assert replayed_features(model, torch.device("cpu")) is None
    assert replayed_model(model, torch.device("cpu")) is None


@pytest.mark.parametrize(("precision", "uses_tf32"), [("tf32", True), ("fp32", False), ("bf16", False)])
def test_tf32_is_used_where_it_is_asked_for(model: Any, precision: str, uses_tf32: bool) -> None:
    apply_compute(Compute(precision=precision, compile=False, channels_last=True), model)
    assert torch.backends.cudnn.allow_tf32 == torch.backends.cuda.matmul.allow_tf32 == uses_tf32
    assert model.is_bf16 == (precision == "bf16")


def test_where_a_run_was_interrupted_does_not_show_in_its_losses() -> None:
    """Sums are kept in float64: in float32 what a checkpoint holds of several ranks would be rounded."""
    losses = [{"loss": torch.rand((), generator=torch.Generator().manual_seed(step))} for step in range(40)]
    whole = Tally(0)
    for one in losses:
        whole.add(one, Passes())
    assert whole.sums["loss"].dtype == torch.float64
    for cut in (1, 7, 39):
        begun = Tally(0)
        for one in losses[:cut]:
            begun.add(one, Passes())
        again = Tally.of(0, begun.underway(Worker(), 0.0), Worker())
        for one in losses[cut:]:
            again.add(one, Passes())
        assert again.result(Worker(), 1) == whole.result(Worker(), 1)


@pytest.mark.parametrize("bad", [1, 3, 5])
def test_a_loss_that_is_not_finite_is_told_with_its_step(bad: int) -> None:
    """However seldom the device is waited for."""
    tally = Tally(2, lr=0.5)
    for step in range(1, 6):
        tally.add({"loss": torch.tensor(float("inf") if step >= bad else 1.0)}, Passes())
        if step == 2 and bad > 2:
            tally.check()
    with pytest.raises(
        DivergenceError,
        match=rf"^the loss became inf in epoch 3, step {bad}; lower optim.lr "
        r"from 0\.5, set optim\.max_grad_norm",
    ):
        tally.check()


def test_weights_that_the_last_step_spoilt_are_found_before_they_are_saved(model: Any) -> None:
    tally = Tally(0, num_steps=7)
    tally.check_weights(model)
    with torch.no_grad():
        model.heads["target"].weight[0, 0] = torch.nan
    with pytest.raises(DivergenceError, match="the weights became nan in epoch 1, after step 7; lower"):
        tally.check_weights(model)
