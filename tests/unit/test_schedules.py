import itertools
from typing import Any

import pytest

from temper.errors import RecipeError
from temper.models import set_trainable, train_mode
from temper.schedules import LPFT, Full, Gradual, HeadOnly, LastK

GROUPS = ["stem", "layer1", "layer2", "head"]
SCHEDULES = [
    HeadOnly(), Full(), LastK(k=2), Gradual(), Gradual(epochs_per_group=3), LPFT(), LPFT(head_frac=0.9)
]  # fmt: skip


@pytest.mark.parametrize("schedule", SCHEDULES, ids=repr)
@pytest.mark.parametrize("num_epochs", [1, 2, 3, 10])
def test_phases_cover_the_run_and_end_with_the_head(schedule: Any, num_epochs: int) -> None:
    phases = schedule.plan(num_epochs, GROUPS)
    assert phases[0].start_epoch == 0
    assert phases[-1].end_epoch == num_epochs
    assert all(a.end_epoch == b.start_epoch for a, b in itertools.pairwise(phases))
    assert all(phase.trainable[-1] == "head" for phase in phases)


def test_gradual_unfreezes_from_the_head_down() -> None:
    phases = Gradual(epochs_per_group=2).plan(10, GROUPS)
    assert [len(phase.trainable) for phase in phases] == [1, 2, 3, 4]
    assert [phase.num_epochs for phase in phases] == [2, 2, 2, 4]


def test_lp_ft_probes_then_trains_all_at_a_smaller_rate() -> None:
    probe, tune = LPFT(head_frac=0.25, full_lr_factor=0.1).plan(8, GROUPS)
    assert (probe.trainable, probe.num_epochs, probe.lr_factor) == (("head",), 2, 1.0)
    assert (tune.trainable, tune.num_epochs, tune.lr_factor) == (tuple(GROUPS), 6, 0.1)


def test_last_k_beyond_the_model() -> None:
    with pytest.raises(RecipeError, match=r"k is 9, this model has 4 groups \(stem, layer1, layer2, head\)"):
        LastK(k=9).plan(2, GROUPS)


def test_frozen_groups_keep_their_statistics(model: Any, batch: Any) -> None:
    images, _ = batch
    trainable = set_trainable(model, ["layer3", "head"], tasks=("target",))
    names = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert {name.split(".")[1] for name in names if name.startswith("backbone")} == {"layer3"}
    assert {name for name in names if name.startswith("heads")} == {
        "heads.target.weight",
        "heads.target.bias",
    }
    assert len(trainable) == len(names)
    train_mode(model)
    before = {name: value.clone() for name, value in model.named_buffers()}
    model(images)
    moved = {name for name, value in model.named_buffers() if not value.equal(before[name])}
    assert moved
    assert all(name.startswith("backbone.layer3") for name in moved)
