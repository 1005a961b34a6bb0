import itertools
from typing import Any, get_args

import pytest

from temper.errors import RecipeError
from temper.models import set_trainable, train_modes
from temper.schedules import LPFT, AnySchedule, Full, Gradual, HeadOnly, LastK, Phases, PhaseSpec, RoLI, Twins

GROUPS = ["stem", "layer1", "layer2", "head"]
SCHEDULES = [
    HeadOnly(), Full(), LastK(k=2), Gradual(), Gradual(epochs_per_group=3), LPFT(), LPFT(head_frac=0.9),
    Gradual(order="from_input"), RoLI(), Twins(), Full(group_decay=2.6, batch_norm="frozen"),
]  # fmt: skip


@pytest.mark.parametrize("schedule", SCHEDULES, ids=repr)
@pytest.mark.parametrize("num_epochs", [1, 2, 3, 10])
def test_phases_cover_the_run_and_end_with_the_head(schedule: Any, num_epochs: int) -> None:
    phases = schedule.plan(num_epochs, GROUPS)
    assert phases[0].start_epoch == 0
    assert phases[-1].end_epoch == num_epochs
    assert all(a.end_epoch == b.start_epoch for a, b in itertools.pairwise(phases))
    assert all(phase.trainable[-1] == "head" for phase in phases)


def test_every_kind_is_tried() -> None:
    kinds = {schedule.kind for schedule in SCHEDULES} | {"phases"}
    assert kinds == {m.model_fields["kind"].default for m in get_args(get_args(AnySchedule)[0])}


def test_gradual_unfreezes_from_the_head_down() -> None:
    phases = Gradual(epochs_per_group=2).plan(10, GROUPS)
    assert [len(phase.trainable) for phase in phases] == [1, 2, 3, 4]
    assert [phase.num_epochs for phase in phases] == [2, 2, 2, 4]


def test_lp_ft_probes_then_trains_all_at_a_smaller_rate() -> None:
    probe, tune = LPFT(head_frac=0.25, full_lr_factor=0.1).plan(8, GROUPS)
    assert (probe.trainable, probe.num_epochs, probe.lr_factor) == (("head",), 2, 1.0)
    assert (tune.trainable, tune.num_epochs, tune.lr_factor) == (tuple(GROUPS), 6, 0.1)


def test_the_probe_of_lp_ft_takes_one_epoch_unless_a_share_is_asked_for() -> None:
    assert [phase.num_epochs for phase in LPFT().plan(10, GROUPS)] == [1, 9]
    assert [phase.num_epochs for phase in LPFT().plan(1, GROUPS)] == [1]
    assert [phase.num_epochs for phase in RoLI().plan(10, GROUPS)] == [5, 5]
    assert [LPFT().label, LPFT(head_frac=0.25).label, RoLI().label] == ["lp_ft", "lp_ft(0.25)", "roli(0.5)"]


def test_gradual_may_begin_at_the_input() -> None:
    phases = Gradual(order="from_input").plan(4, GROUPS)
    assert [phase.trainable for phase in phases] == [
        ("head",),
        ("stem", "head"),
        ("stem", "layer1", "head"),
        ("stem", "layer1", "layer2", "head"),
    ]


def test_the_probe_is_clean_in_lp_ft_and_attacked_in_roli() -> None:
    assert [phase.is_attacked for phase in LPFT().plan(4, GROUPS)] == [False, True]
    assert [phase.is_attacked for phase in RoLI().plan(4, GROUPS)] == [True, True]


def test_twins_share_everything_but_their_statistics() -> None:
    (phase,) = Twins(twin_weight=0.5).plan(4, GROUPS)
    assert (phase.trainable, phase.batch_norm, phase.twin_weight) == (tuple(GROUPS), "twin", 0.5)


def test_rates_are_geometric_from_the_head_and_do_not_depend_on_the_phase() -> None:
    phases = Gradual(group_decay=2.6).plan(4, GROUPS)
    assert phases[-1].lr_factors(GROUPS) == pytest.approx(
        {"head": 1, "layer2": 1 / 2.6, "layer1": 1 / 2.6**2, "stem": 1 / 2.6**3}
    )
    for phase in phases:
        factors = phase.lr_factors(GROUPS)
        assert factors == {group: phases[-1].lr_factors(GROUPS)[group] for group in phase.trainable}


def test_listed_phases_take_the_schedules_own_settings_where_they_say_nothing() -> None:
    listed = Phases(
        batch_norm="frozen",
        group_decay=2.0,
        phases=(
            PhaseSpec(epochs=1, name="probe", groups=(), is_attacked=False),
            PhaseSpec(epochs=2, groups=("layer2",), lr_factor=0.5),
            PhaseSpec(epochs=3, batch_norm="train", group_decay=1.0),
        ),
    )
    probe, partial, whole = listed.plan(6, GROUPS)
    assert (probe.name, probe.trainable, probe.is_attacked, probe.batch_norm) == (
        "probe", ("head",), False, "frozen"
    )  # fmt: skip
    assert (partial.name, partial.start_epoch, partial.trainable) == ("phase 2", 1, ("layer2", "head"))
    assert partial.lr_factors(GROUPS) == {"layer2": 0.25, "head": 0.5}
    assert (whole.end_epoch, whole.batch_norm, whole.group_decay) == (6, "train", 1.0)


def test_listed_phases_that_do_not_fit() -> None:
    listed = Phases(phases=(PhaseSpec(epochs=2, groups=("layer9",)),))
    with pytest.raises(RecipeError, match=r"schedule.phases: they last 2 epochs, the run 3"):
        listed.plan(3, GROUPS)
    with pytest.raises(
        RecipeError, match=r"schedule.phases.0.groups: no group 'layer9'. Groups: stem, layer1"
    ):
        listed.plan(2, GROUPS)


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
    assert sum(len(own) for own in trainable.values()) == len(names)
    for module, mode in train_modes(model):
        module.training = mode
    before = {name: value.clone() for name, value in model.named_buffers()}
    model(images)
    moved = {name for name, value in model.named_buffers() if not value.equal(before[name])}
    assert moved
    assert all(name.startswith("backbone.layer3") for name in moved)
