"""``optim.lr: auto``: a range test on the run's own images; and the defaults of a pretrained start."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from temper.cluster.datasets import build_train_data, decode_splits
from temper.cluster.launch import launch
from temper.models import build_model
from temper.optim import OptimSpec
from temper.recipe import Recipe, build_recipe
from temper.run.open_data import open_data
from temper.training import Worker, plan_phases, read_state
from temper.training.range_test import ATTACKED_FRACTION, BUDGET, FRACTION, find_lr
from temper.training.rate import UNMEASURED, limit_of

MEASURED = {"optim": {"kind": "adamw", "lr": "auto"}, "data__batch_size": 16}


def test_the_limit_lies_where_the_loss_has_risen_by_half_of_that_of_guessing() -> None:
    rates = [1e-4, 1e-3, 1e-2, 1e-1]
    rise = math.log(4) / 2
    assert limit_of(rates, [0.5, 0.5, 0.5 + rise, 9.0], 4) == pytest.approx(1e-2)
    # Half way up on the scale of the loss is half way on the logarithmic scale of the rates.
    assert limit_of(rates, [0.5, 0.5, 0.5 + 2 * rise], 4) == pytest.approx(10**-2.5)
    assert limit_of(rates, [0.5, 0.4, 0.5, 0.6], 4) is None
    assert limit_of(rates, [0.5, 0.5, math.nan], 4) == 1e-3
    assert limit_of(rates, [], 4) is None


def test_a_start_whose_loss_falls_first_has_not_risen() -> None:
    """Magnetic tiles with seed 2: its start is bad at first, and was given the least rate there is."""
    rates = [1e-5 * 1.2279**step for step in range(32)]
    falling = [2.33, 2.08, 1.91, 2.04, 1.85, 1.68, 1.53, 1.31, 1.1, 1.0, 1.06, 0.88, 0.96, 1.06, 1.14, 1.18]
    rising = [1.22, 1.35, 1.18, 1.39, 2.23, 2.44, 3.02, 2.74, 2.72, 2.5, 3.06, 3.79, 3.87, 5.73, 10.06, 12.14]
    assert limit_of(rates, falling + rising, 6) == pytest.approx(6e-4, rel=0.02)


def test_a_rise_that_is_made_good_at_higher_rates_is_none() -> None:
    """Chest X-rays with seed 0: a fit trained at a tenth of what other seeds got, and hardened nothing."""
    rates = [1e-5 * 1.2278829**step for step in range(29)]
    still = [0.22, 0.13, 0.22, 0.3, 0.23, 0.21, 0.28, 0.24, 0.25, 0.29, 0.25, 0.27, 0.33, 0.26]
    hump = [0.43, 0.85, 0.9, 0.69, 0.76, 1.32, 1.27, 1.05, 0.86, 0.72, 0.54, 0.46]
    assert limit_of(rates, [*still, *hump, 1.27, 1.0, 1.05], 2) == pytest.approx(1.7e-3, rel=0.03)
    assert limit_of(rates, [*still, *hump[:-1]], 2) == pytest.approx(1.8e-4, rel=0.03)
    assert limit_of(rates, [*still, *hump], 2) is None
    assert limit_of(rates, [math.nan], 2) == rates[0]


def found(recipe: Recipe) -> Any:
    data = open_data(recipe)
    feed = build_train_data(recipe, data, decode_splits(recipe, data, with_ray=False), rank=0, world_size=1)
    model = build_model(recipe.model, data.classes, image_size=recipe.data.image_size, seed=recipe.seed)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    rate, passes = find_lr(recipe, feed, plan_phases(recipe, model)[0], model, Worker())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    return rate, passes, feed


def test_the_rate_is_that_of_the_seed_and_takes_a_tenth_of_the_run(tiny_recipe: Any) -> None:
    recipe = tiny_recipe(**MEASURED, epochs=8)
    rate, passes, feed = found(recipe)
    assert rate.was_measured
    assert len(rate.rates) == len(rate.losses) <= BUDGET * 8 * feed.target.num_batches
    assert passes.backward == len(rate.rates) * 16 * (1 + recipe.objective.uses_source)
    assert rate.limit is None or rate.lr == pytest.approx(ATTACKED_FRACTION * rate.limit, rel=0.05)
    plain = found(tiny_recipe(**MEASURED, epochs=8, objective__adversary=None))[0]
    assert plain.losses == rate.losses  # attacks take no part in the test
    assert plain.limit is None or plain.lr == pytest.approx(FRACTION * plain.limit, rel=0.05)
    assert found(recipe)[0] == rate
    assert found(tiny_recipe(**MEASURED, epochs=8, seed=1))[0] != rate


def test_a_run_too_short_to_measure(tiny_recipe: Any) -> None:
    rate, passes, _ = found(tiny_recipe(**MEASURED, epochs=1))
    assert (rate.lr, rate.was_measured, passes.forward) == (UNMEASURED, False, 0)


def test_what_was_measured_stays_with_the_run(tiny_recipe: Any, tmp_path: Path) -> None:
    plain = {**MEASURED, "epochs": 8, "objective__adversary": None, "validation__max_images": 16}
    launch(tiny_recipe(**plain), tmp_path / "run")
    state = read_state(tmp_path / "run/checkpoint")
    assert state.rate is not None
    assert state.rate.was_measured
    by_hand = {"kind": "adamw", "lr": state.rate.lr}
    launch(tiny_recipe(**{**plain, "optim": by_hand}), tmp_path / "by hand")
    assert losses(tmp_path / "run") == pytest.approx(losses(tmp_path / "by hand"), abs=1e-6)


def losses(run: Path) -> list[float]:
    return [json.loads(line)["train/loss"] for line in (run / "metrics.jsonl").read_text().splitlines()]


def document(**changes: Any) -> dict[str, Any]:
    data = {"target": "shards/x", "image_size": 32}
    return {
        "name": "x", "epochs": 2, "threat": {"norm": "linf", "eps": 0.1}, "data": data,
        "model": {"backbone": "resnet18", "weights": "pretrained"}, **changes,
    }  # fmt: skip


def test_defaults_of_a_pretrained_start_are_written_out() -> None:
    recipe = build_recipe(document())
    optim = recipe.optim
    assert (optim.kind, optim.lr, optim.ema_decay, optim.max_grad_norm) == ("adamw", "auto", "auto", 1.0)
    assert recipe.schedule.batch_norm == "frozen"
    assert build_recipe(recipe.resolved()) == recipe
    own = build_recipe(document(optim={"lr": 0.1}))  # a rate of its own: BatchNorm held still may not bear it
    assert (own.optim.kind, own.optim.lr, own.optim.ema_decay) == ("sgd", 0.1, None)
    assert own.schedule.batch_norm == "train"
    own = build_recipe(document(schedule={"kind": "lp_ft", "batch_norm": "train"}))
    assert own.schedule.batch_norm == "train"
    assert build_recipe(document(optim={"kind": "sgd"})).optim.lr == "auto"
    assert build_recipe(document(schedule={"kind": "twins"})).schedule.batch_norm == "twin"


def test_a_random_start_keeps_the_defaults_that_it_had() -> None:
    recipe = build_recipe(document(model={"backbone": "resnet18"}))
    assert recipe.optim == OptimSpec()
    assert (recipe.optim.lr, recipe.schedule.batch_norm) == (0.05, "train")


def test_a_rate_is_a_number_a_ratio_or_auto() -> None:
    assert build_recipe(document(optim={"lr": "1/100"})).optim.lr == 0.01
    with pytest.raises(Exception, match=r"optim\.lr"):
        build_recipe(document(optim={"lr": "fast"}))


@pytest.mark.parametrize(("decay", "expected"), [(None, None), (0.9, 0.9), ("auto", 0.99)])
def test_the_average_follows_the_length_of_the_run(decay: Any, expected: Any) -> None:
    assert OptimSpec(ema_decay=decay).ema_decay_of(1000) == expected
    assert OptimSpec(ema_decay="auto").ema_decay_of(5) == 0.5
