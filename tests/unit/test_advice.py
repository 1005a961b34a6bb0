"""Advice on facts whose figures can be worked out by hand: each kind given, and each left out."""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from temper.advice import Answers, Course, Facts, advise_on_pair, give_advice
from temper.advice.losses import Fall, find_fall, guess_loss, least_loss
from temper.recipe import build_recipe
from temper.records import AdviceRecord, CurvePoint, ValidationRecord
from temper.spec import Threat, parse_assignments
from temper.statistics import balanced_proportion, paired_balanced_p, validation_beside, wilson

PLAIN: dict[str, Any] = {
    "name": "plain",
    "epochs": 10,
    "threat": {"norm": "linf", "eps": 8 / 255},
    "data": {"target": "shards/x", "image_size": 32},
    "model": {"backbone": "resnet8"},
}
HARDENED = {**PLAIN, "objective": {"adversary": {"kind": "pgd", "eps": 8 / 255}}}
CLASSES = ["a", "b", "c", "d"]


def answers(*classes: tuple[int, int, int]) -> Answers:
    """Of each class: images, right on clean ones, right under attack."""
    labels = np.repeat(np.arange(len(classes)), [total for total, _, _ in classes])
    correct = np.concatenate([np.arange(total) < right for total, right, _ in classes])
    robust = np.concatenate([np.arange(total) < standing for total, _, standing in classes])
    return Answers(np.arange(len(labels)), labels, correct, robust)


def facts_of(recipe: dict[str, Any], *classes: tuple[int, int, int], **more: Any) -> Facts:
    """Of a run of ``recipe`` with these answers."""
    found, count = answers(*classes), sum(total for total, _, _ in classes)
    resolved = build_recipe(recipe)
    return Facts(
        **{
            "classes": CLASSES[: len(classes)],
            "threat": Threat(norm=resolved.threat.norm, eps=resolved.threat.eps),
            "clean": wilson(int(found.correct.sum()), count),
            "robust": wilson(int(found.robust.sum()), count),
            "balanced_acc": balanced_proportion(found.correct, found.labels)[0],
            "robust_balanced_acc": balanced_proportion(found.robust, found.labels)[0],
            "answers": found,
            "recipe": resolved.resolved(),
            **more,
        }
    )


def only(facts: Facts, kind: str) -> AdviceRecord:
    """The advice, which is the only one; its option fits the recipe that it was given for."""
    (found,) = give_advice(facts)
    assert found.kind == kind
    check_option(facts, found)
    return found


def check_option(facts: Facts, found: AdviceRecord) -> None:
    if found.option is not None and found.option.startswith("--set"):
        words = found.option.split()
        assert words[::2] == ["--set"] * (len(words) // 2)
        build_recipe(dict(facts.recipe), parse_assignments(words[1::2]))


GOOD = ((100, 90, 0), (100, 85, 0))
"""A plain model of two classes with nothing to say about it."""


def test_good_models_get_no_advice() -> None:
    assert give_advice(Facts()) == []
    assert give_advice(facts_of(PLAIN, *GOOD)) == []
    course = Course(
        losses=[1.0, 0.5, 0.3, 0.2, 0.12, 0.06, 0.05, 0.05, 0.05, 0.05],
        best_epoch=5,
        val_acc=0.9,
        num_val=100,
        num_train={"a": 300, "b": 300},
    )
    assert give_advice(facts_of(PLAIN, *GOOD, course=course, probe_balanced_acc=0.8)) == []
    assert give_advice(facts_of(HARDENED, (100, 90, 70), (100, 85, 70), course=course)) == []


def test_no_better_than_a_guess() -> None:
    found = only(facts_of(PLAIN, (90, 90, 0), (30, 0, 0)), "worse_than_majority")
    assert found.values == {
        "clean_acc": 0.75,
        "majority_share": 0.75,
        "balanced_acc": 0.5,
        "chance": 0.5,
        "p": 1.0,
    }
    assert found.text.startswith(
        "Balanced accuracy is 50.0 %, no better than a guess (50.0 %); 75.0 % of the test images are right, "
        "and always answering 'a' gets 75.0 %."
    )
    # It answers the largest class alone, so rare ones are to be seen more often.
    assert found.option == "--set data.sampling=balanced"
    balanced = {**PLAIN, "data": {**PLAIN["data"], "sampling": "balanced"}, "optim": {"lr": 0.03}}
    found = only(facts_of(balanced, (90, 90, 0), (30, 0, 0)), "worse_than_majority")
    assert found.option == "--set optim.lr=0.01"
    assert "than 0.03: 0.01, then 0.09" in found.text


def test_hardly_better_than_a_guess_is_said_as_it_is() -> None:
    """22 of 40: 55 %, and the interval reaches down to 39 %; 70 % of 40 is beyond doubt."""
    found = only(facts_of(PLAIN, (20, 11, 0), (20, 11, 0)), "worse_than_majority")
    assert "not significantly better than a guess" in found.text
    assert give_advice(facts_of(PLAIN, (20, 14, 0), (20, 15, 0))) == []


def test_fewer_right_than_the_largest_class_has() -> None:
    """60 of 90 and 28 of 30 are 73.3 %, always answering the first gets 75: chance. 30 of 90 are not."""
    assert give_advice(facts_of(PLAIN, (90, 60, 0), (30, 28, 0))) == []
    balanced = {**PLAIN, "data": {**PLAIN["data"], "sampling": "balanced"}}
    found = only(facts_of(balanced, (90, 30, 0), (30, 29, 0)), "worse_than_majority")
    assert found.values["clean_acc"] == pytest.approx(59 / 120)
    assert found.values["p"] < 0.001  # 29 images right that are not of the first class, 60 wrong that are
    assert found.option == "--set data.sampling=uniform"


def test_a_foreign_model_has_no_option_of_training() -> None:
    facts = replace(facts_of(PLAIN, (50, 25, 0), (50, 25, 0)), recipe={"model": "zoo.py:build"})
    (found,) = give_advice(facts)
    assert (found.kind, found.option) == ("worse_than_majority", None)
    assert "classes are in the order of the shards" in found.text


@pytest.mark.parametrize(("probe", "is_told"), [(0.87, False), (0.894, False), (0.896, True), (0.99, True)])
def test_two_points_below_the_probe(probe: float, is_told: bool) -> None:
    """The model has 87.5 % balanced."""
    found = give_advice(facts_of(PLAIN, *GOOD, probe_balanced_acc=probe))
    assert [one.kind for one in found] == ["worse_than_probe"] * is_told
    if is_told:
        assert found[0].values["gain"] == pytest.approx(0.875 - probe)
        assert f"{100 * (probe - 0.875):.1f} points below a linear probe" in found[0].text


def test_below_the_probe_image_by_image() -> None:
    """The same 3.5 points: on 7 images one way it is told as sure, as 57 against 50 as what may be chance."""
    base = facts_of(PLAIN, *GOOD)
    assert base.answers is not None
    correct = base.answers.correct
    sure = correct.copy()
    sure[90:97] = True
    found = only(replace(base, probe_balanced_acc=0.91, probe_correct=sure), "worse_than_probe")
    # Seven discordant images, all one way: (7 - 1) / sqrt(7).
    assert found.values["p"] == pytest.approx(math.erfc(6 / math.sqrt(7) / math.sqrt(2)))
    assert "(p = 0.023)" in found.text
    few = correct.copy()
    few[[90, 91, 92, 93, 94, 95, 96]] = True
    few[:3] = False
    found = only(replace(base, probe_balanced_acc=0.895, probe_correct=few), "worse_than_probe")
    assert "so it may be chance" in found.text
    # One point, and surely: 1000 images of each class, 20 of them discordant and all one way.
    large = facts_of(PLAIN, (1000, 900, 0), (1000, 850, 0))
    assert large.answers is not None
    other = large.answers.correct.copy()
    other[900:920] = True
    assert only(replace(large, probe_balanced_acc=0.885, probe_correct=other), "worse_than_probe")
    other[:15] = False
    assert give_advice(replace(large, probe_balanced_acc=0.8775, probe_correct=other)) == []


@pytest.mark.parametrize(
    ("recipe", "course", "option"),
    [
        ({}, Course(losses=[2.0, 1.5, 1.0, 0.8], best_epoch=3), "epochs=20"),
        ({}, Course(losses=[1.0, 0.1, 0.02, 0.02], best_epoch=1), "schedule.kind=lp_ft"),
        ({"schedule": {"kind": "lp_ft"}}, Course(losses=[0.02, 0.02]), "schedule.full_lr_factor=0.033"),
        ({"optim": {"lr": 0.3}}, Course(losses=[0.5, 0.5, 0.5, 0.5]), "optim.lr=0.1"),
        ({"optim": {"lr": 0.01}}, Course(losses=[0.5, 0.49, 0.485, 0.48]), "optim.lr=0.03"),
        ({}, Course(val_acc=0.9, probe_val_acc=0.8, num_val=50), "optim.lr=0.017"),
        (
            {"validation": {"max_images": 50}},
            Course(val_acc=0.9, probe_val_acc=0.8, num_val=50),
            "validation.max_images=null",
        ),
        (
            {"validation": {"max_images": 256}},
            Course(val_acc=0.9, probe_val_acc=0.8, num_val=50),
            "optim.lr=0.017",
        ),
    ],
    ids=[
        "falling",
        "low",
        "low lp_ft",
        "high",
        "high and only fell",
        "ahead on validation",
        "ahead on a part of it",
        "ahead on fewer images than allowed",
    ],
)
def test_what_to_change_follows_from_the_training(recipe: Any, course: Course, option: str) -> None:
    facts = facts_of({**PLAIN, **recipe}, *GOOD, course=course, probe_balanced_acc=0.95)
    found = give_advice(facts)
    assert found[0].kind == "worse_than_probe"
    assert found[0].option == f"--set {option}"
    for one in found:
        check_option(facts, one)


@pytest.mark.parametrize(
    ("recipe", "epochs", "option"),
    [
        (HARDENED, 40, "--set epochs=500"),
        (PLAIN, 40, "--set epochs=150"),
        (PLAIN, 60, None),
        (HARDENED, 160, None),
    ],
)
def test_too_few_steps_for_anything(recipe: dict[str, Any], epochs: int, option: str | None) -> None:
    """Eighty images in batches of 32 are two steps an epoch."""
    recipe = {**recipe, "epochs": epochs, "data": {**recipe["data"], "batch_size": 32}}
    course = Course(losses=[1.0] * epochs, num_train={"a": 40, "b": 40})
    facts = facts_of(recipe, (20, 10, 0), (20, 10, 0), probe_balanced_acc=0.9, course=course)
    found = {one.kind: one for one in give_advice(facts)}["worse_than_probe"]
    check_option(facts, found)
    if option is None:
        assert "steps" not in found.text
        return
    assert found.option == option
    assert f"{epochs} epochs are {2 * epochs} steps" in found.text


def test_the_rate_that_is_found_is_recommended_where_there_is_one() -> None:
    facts = facts_of(PLAIN, *GOOD, probe_balanced_acc=0.95)
    (found,) = give_advice(replace(facts, has_auto_lr=True))
    assert found.option == "--set optim.lr=auto"


@pytest.mark.parametrize(
    ("losses", "fall"),
    [
        ([], None),
        ([1.0], None),
        ([1.0, 0.5], Fall(1.0, 0.5, 1)),
        ([1.0, 0.9], None),  # of two epochs it takes 15 %
        ([1.0, 1.0, 0.96], None),  # 4 %
        ([1.0, 1.1], None),
        ([1.0, 0.9, 0.8, 0.7], Fall(0.8, 0.7, 1)),
        ([2.0, 1.0, 0.6, 0.5, 0.45, 0.43, 0.42, 0.42, 0.42, 0.42], None),
        ([1.0 - 0.05 * epoch for epoch in range(10)], Fall(0.675, 0.575, 2)),
        ([0.5, 0.6, 0.5, 0.6, 0.5, 0.6, 0.5, 0.6, 0.6, 0.5], None),  # 0 %
        ([0.8, 0.5, 0.9, 0.4, 0.8, 0.5, 0.9, 0.5, 0.7, 0.5], None),  # 14 %, within the noise
        ([1.0, float("nan")], None),
    ],
    ids=str,
)
def test_a_fall_beyond_the_noise(losses: list[float], fall: Fall | None) -> None:
    found = find_fall(losses)
    if fall is None:
        assert found is None
        return
    assert found is not None
    assert (found.before, found.after, found.num_epochs) == pytest.approx(
        (fall.before, fall.after, fall.num_epochs)
    )


@pytest.mark.parametrize("num_epochs", [2, 3, 4, 6, 10, 20, 50])
def test_noise_is_seldom_taken_for_a_fall(num_epochs: int) -> None:
    """Epochs that differ by 3 % around a flat line; a straight fall by half over the run is always seen."""
    draw = np.random.default_rng(0)
    noise = draw.normal(0, 0.03, (400, num_epochs))
    assert sum(find_fall((1 + one).tolist()) is not None for one in noise) <= 20
    falling = 2 - np.arange(num_epochs) / num_epochs
    assert sum(find_fall((falling + one).tolist()) is not None for one in noise) >= 360


def test_the_least_loss_of_smoothed_labels() -> None:
    assert least_loss(4, 0.0) == 0
    # 0.1 over four classes: 0.925 for the right one, 0.025 for each other.
    assert least_loss(4, 0.1) == pytest.approx(-0.925 * math.log(0.925) - 3 * 0.025 * math.log(0.025))
    assert guess_loss(4) == pytest.approx(math.log(4))


FALLING = [2.0, 1.9, 1.8, 1.7, 1.6, 1.5, 1.4, 1.3, 1.2, 1.1]


def test_loss_still_falling() -> None:
    found = only(facts_of(PLAIN, *GOOD, course=Course(losses=FALLING, best_epoch=9)), "loss_still_falling")
    # (1.4 + 1.3) / 2 to (1.2 + 1.1) / 2.
    assert found.values == pytest.approx({"before": 1.35, "after": 1.15, "fall": 0.2 / 1.35, "epochs": 10.0})
    assert found.option == "--set epochs=20"
    assert found.text == (
        "The training loss was still falling, by 14.8 % over the last 2 epochs of 10 (1.35 to 1.15), and "
        "epoch 10 was the best. Train longer."
    )


def test_epochs_are_counted_from_the_first_of_the_run() -> None:
    """Five epochs were solved, not trained by steps; ten losses are known, and two are their last fifth."""
    course = Course(losses=FALLING, first_epoch=5, best_epoch=14)
    found = only(facts_of({**PLAIN, "epochs": 15}, *GOOD, course=course), "loss_still_falling")
    assert "over the last 2 epochs of 15" in found.text
    assert found.option == "--set epochs=30"
    assert give_advice(facts_of(PLAIN, *GOOD, course=replace(course, best_epoch=9))) == []
    assert only(facts_of(PLAIN, *GOOD, course=replace(course, best_epoch=None)), "loss_still_falling")


@pytest.mark.parametrize(
    "course",
    [
        Course(losses=FALLING, best_epoch=4),  # it overfits since
        Course(losses=FALLING, best_epoch=9, stopped="no better val/target/clean_acc in 3 validations"),
        Course(losses=[loss / 40 for loss in FALLING], best_epoch=9),  # 0.03: all images are learned
    ],
    ids=["best long ago", "stopped", "low"],
)
def test_more_epochs_are_not_always_the_cure(course: Course) -> None:
    assert give_advice(facts_of(PLAIN, *GOOD, course=course)) == []


def test_validation_above_test() -> None:
    """95 % of 200 against 87.5 % of 200: pooled 91.25 %, z = 2.65."""
    facts = facts_of(PLAIN, *GOOD)
    found = only(replace(facts, validation=validated(facts, 190, 200)), "validation_above_test")
    z = 0.075 / math.sqrt(2 * 0.9125 * 0.0875 / 200)
    assert found.values["p"] == pytest.approx(math.erfc(z / math.sqrt(2)))
    assert found.values["gap"] == pytest.approx(0.075)
    assert (
        "(95.0 % of 200 images) is 7.5 points above test accuracy (87.5 % of 200; p = 0.0079)" in found.text
    )
    assert found.option == "temper crossval RECIPE --folds 5"


def test_more_epochs_do_not_cure_a_test_that_is_unlike_validation() -> None:
    facts = facts_of(PLAIN, *GOOD, course=Course(losses=FALLING, best_epoch=9))
    assert only(facts, "loss_still_falling")
    assert only(replace(facts, validation=validated(facts, 190, 200)), "validation_above_test")


def validated(facts: Facts, count: int, total: int, balanced_acc: float | None = None) -> ValidationRecord:
    assert facts.clean is not None
    balanced_acc = count / total if balanced_acc is None else balanced_acc
    return validation_beside(wilson(count, total), balanced_acc, facts.clean)


@pytest.mark.parametrize(
    "answers",
    [
        (95, 100, 0.95),  # p = 0.04
        (160, 200, 0.80),
        (190, 200, 0.88),  # only the shares of the classes differ
    ],
    ids=["few", "below", "other shares"],
)
def test_validation_not_surely_above_test(answers: tuple[int, int, float]) -> None:
    facts = facts_of(PLAIN, *GOOD)
    assert give_advice(replace(facts, validation=validated(facts, *answers))) == []


def test_a_class_that_is_never_right() -> None:
    facts = facts_of(PLAIN, (100, 90, 0), (60, 55, 0), (10, 0, 0), (100, 90, 0))
    found = only(facts, "class_never_right")
    assert found.values == {"num_classes": 1.0, "num_images": 10.0}
    assert found.text.startswith("No test image of 'c' is classified correctly (10 in all).")
    assert found.option == "--set data.sampling=balanced"
    streamed = {**PLAIN, "data": {**PLAIN["data"], "resident": False}}
    facts = facts_of(streamed, (100, 90, 0), (60, 55, 0), (10, 0, 0), (100, 90, 0))
    assert only(facts, "class_never_right").option == "--set objective.class_weights=balanced"
    assert give_advice(facts_of(PLAIN, (100, 90, 0), (60, 55, 0), (10, 1, 0), (100, 90, 0))) == []


def test_three_images_do_not_make_a_class_unrecognised() -> None:
    """0 of 3: up to 56 %. But three are few to measure it by."""
    found = only(facts_of(PLAIN, (100, 90, 0), (100, 90, 0), (3, 0, 0)), "few_images")
    assert found.values == {"num_test": 3.0, "num_classes": 1.0}
    assert found.option == "temper crossval RECIPE --folds 5"
    subset = {**PLAIN, "evaluation": {"max_images": 203}}
    found = only(facts_of(subset, (100, 90, 0), (100, 90, 0), (3, 0, 0)), "few_images")
    assert found.option == "--set evaluation.max_images=null"


def test_few_training_images() -> None:
    course = Course(num_train={"a": 300, "b": 7})
    found = only(facts_of(PLAIN, *GOOD, course=course), "few_images")
    assert found.text.startswith("'b' has 7 training images; even 20 are few to learn a class from.")
    assert found.option == "--set data.sampling=balanced"
    asked_for = {**PLAIN, "data": {**PLAIN["data"], "shots_per_class": 7}}
    assert give_advice(facts_of(asked_for, *GOOD, course=course)) == []
    assert give_advice(facts_of(PLAIN, *GOOD, course=Course(num_train={"a": 20, "b": 20}))) == []


def test_hardened_but_not_robust() -> None:
    classes = ((100, 90, 3), (100, 80, 2), (100, 80, 4), (100, 90, 1))
    found = only(facts_of(HARDENED, *classes), "not_robust")
    assert found.values == pytest.approx({"robust_balanced_acc": 0.025, "chance": 0.25, "robust_acc": 0.025})
    assert "2.5 % at Linf 8/255, no better than a constant answer (25.0 %)" in found.text
    assert found.option == "--set objective.adversary.eps_schedule.kind=ramp"
    assert give_advice(facts_of(PLAIN, *classes)) == []  # nobody expects it of a plain model
    constant = facts_of(HARDENED, (100, 100, 100), (100, 0, 0))
    assert only(constant, "worse_than_majority")  # which says it all
    assert give_advice(facts_of(HARDENED, (100, 90, 60), (100, 80, 60), (100, 80, 40), (100, 90, 40))) == []


@pytest.mark.parametrize(
    ("change", "option"),
    [
        ({"schedule": {"kind": "head_only"}}, "--set schedule.kind=full"),
        ({"model": {"backbone": "resnet8", "adapter": {"kind": "lora"}}}, "--set model.adapter=null"),
        (
            {"objective": {"adversary": {"kind": "pgd", "eps": 8 / 255, "eps_schedule": {"kind": "ramp"}}}},
            "--set objective.adversary.eps=4/255 --set threat.eps=4/255",
        ),
    ],
    ids=str,
)
def test_what_makes_hardening_take(change: dict[str, Any], option: str) -> None:
    found = only(facts_of({**HARDENED, **change}, (100, 90, 3), (100, 80, 2)), "not_robust")
    assert found.option == option


def test_an_eps_that_is_too_large() -> None:
    classes = ((100, 90, 3), (100, 80, 2), (100, 80, 4), (100, 90, 1))
    curve = [
        CurvePoint(eps=2 / 255, robust_acc=wilson(260, 400)),
        CurvePoint(eps=4 / 255, robust_acc=wilson(180, 400)),
        CurvePoint(eps=8 / 255, robust_acc=wilson(10, 400)),
    ]
    found = only(facts_of(HARDENED, *classes, curve=curve), "eps_too_large")
    assert found.text.startswith(
        "Robust accuracy of the hardened model is 45.0 % at eps 4/255, but 2.5 % at Linf 8/255, which is too"
    )
    assert found.option == "--set objective.adversary.eps=4/255 --set threat.eps=4/255"
    # At 4/255 no more than a constant answer would keep, at 2/255 it holds.
    curve[1] = CurvePoint(eps=4 / 255, robust_acc=wilson(100, 400))
    assert only(facts_of(HARDENED, *classes, curve=curve), "eps_too_large").values["eps"] == 2 / 255
    curve[0] = CurvePoint(eps=2 / 255, robust_acc=wilson(100, 400))
    assert only(facts_of(HARDENED, *classes, curve=curve), "not_robust")


def test_a_hardened_model_near_its_plain_one() -> None:
    plain = facts_of(PLAIN, (100, 95, 60), (100, 95, 60))
    hardened = facts_of(HARDENED, (100, 90, 62), (100, 90, 63))
    (found,) = advise_on_pair(plain, hardened)
    assert found.kind == "hardened_near_plain"
    # Five images that the plain one loses and none the other way: (5 - 1) / sqrt(5).
    assert found.values["p"] == pytest.approx(math.erfc(4 / math.sqrt(5) / math.sqrt(2)))
    assert "from 60.0 % to 62.5 % (p = 0.074)" in found.text
    check_option(hardened, found)
    assert give_advice(replace(hardened, plain=plain)) == [found]
    assert advise_on_pair(plain, facts_of(HARDENED, (100, 90, 75), (100, 90, 75))) == []
    assert advise_on_pair(plain, plain) == []
    blocked = replace(hardened, failed_gates=["black box"])
    assert advise_on_pair(plain, blocked) == []


def test_hardening_that_takes_too_much() -> None:
    plain = facts_of(PLAIN, (100, 95, 0), (100, 95, 0))
    hardened = facts_of(HARDENED, (100, 80, 70), (100, 80, 70))
    (found,) = advise_on_pair(plain, hardened)
    assert found.kind == "clean_lost"
    assert found.text.startswith(
        "Hardening cost 15.0 points of balanced clean accuracy, from 95.0 % to 80.0 % (p < 0.0001)."
    )
    assert found.option == "--set objective.adversary.eps_schedule.kind=ramp"
    trades = {**HARDENED, "objective": {"adversary": {"kind": "trades", "eps": 8 / 255}}}
    (found,) = advise_on_pair(plain, facts_of(trades, (100, 80, 70), (100, 80, 70)))
    assert found.option == "--set objective.adversary.beta=3"
    assert advise_on_pair(plain, facts_of(HARDENED, (100, 86, 70), (100, 86, 70))) == []


def test_a_pair_on_other_images_is_compared_by_totals() -> None:
    plain, hardened = (
        facts_of(PLAIN, (100, 95, 0), (100, 95, 0)),
        facts_of(HARDENED, (100, 80, 70), (100, 80, 70)),
    )
    (found,) = advise_on_pair(replace(plain, answers=None), hardened)
    z = 0.15 / math.sqrt(2 * 0.875 * 0.125 / 200)
    assert found.values["p"] == pytest.approx(math.erfc(z / math.sqrt(2)))


def test_blocked() -> None:
    facts = facts_of(HARDENED, (100, 90, 3), (100, 85, 2), failed_gates=["one step"])
    found = only(facts, "blocked")  # of its robust accuracy nothing else is said
    assert found.text == (
        "The gate 'one step' failed, so the robust accuracy cannot be trusted. Do what its detail says "
        "(docs/gates.md)."
    )
    assert found.option is None
    found = only(replace(facts, failed_gates=["one step", "more steps"]), "blocked")
    assert found.option == "--set evaluation.suite=standard"


def test_names_are_cut_short() -> None:
    facts = facts_of(PLAIN, (90, 90, 0), (30, 0, 0), classes=["n" * 200, "\n\n evil "])
    (found,) = give_advice(facts)
    assert "n" * 39 + "…'" in found.text
    assert len(found.text) < 400


def test_an_interval_of_balanced_accuracy() -> None:
    """8 of 10 (Wilson 49.0 to 94.3 %) and 5 of 10 (23.7 to 76.3 %), whose squared distances add up."""
    right = np.array([True] * 8 + [False] * 2 + [True] * 5 + [False] * 5)
    value, interval = balanced_proportion(right, np.repeat([0, 1], 10))
    assert value == pytest.approx(0.65)
    assert interval.low == pytest.approx(0.65 - math.hypot(0.8 - 0.4902, 0.5 - 0.2366) / 2, abs=1e-4)
    assert interval.high == pytest.approx(0.65 + math.hypot(0.9433 - 0.8, 0.7634 - 0.5) / 2, abs=1e-4)


def test_a_paired_test_of_balanced_accuracy() -> None:
    """Equal classes: McNemar with Edwards' correction; one image of two weighs as four of eight."""
    labels = np.repeat([0, 1], 10)
    a, b = np.zeros(20, bool), np.zeros(20, bool)
    a[:9], b[9] = True, True
    assert paired_balanced_p(a, b, labels) == pytest.approx(math.erfc(7 / math.sqrt(10) / math.sqrt(2)))
    assert paired_balanced_p(a, a, labels) == 1
    labels = np.repeat([0, 1], [2, 8])
    a, b = np.zeros(10, bool), np.zeros(10, bool)
    a[0], b[2:4] = True, True
    z = (1 / 2 - 2 / 8 - 1 / 8) / math.sqrt(1 / 4 + 2 / 64)
    assert paired_balanced_p(a, b, labels) == pytest.approx(math.erfc(z / math.sqrt(2)))
    # Kept within its level: four of a kind are not yet significant (exact: 0.125).
    a, b = np.arange(20) < 4, np.zeros(20, bool)
    assert paired_balanced_p(a, b, np.repeat([0, 1], 10)) > 0.12


def test_it_does_not_cry_on_noise() -> None:
    """Of 400 fair models that are as good as their probe, few are called worse; of plain pairs likewise."""
    draw = np.random.default_rng(0)
    labels = np.repeat([0, 1, 2], [200, 60, 20])
    false = 0
    for _ in range(400):
        chance = draw.random(280) * 0.6 + 0.3
        one, other = draw.random(280) < chance, draw.random(280) < chance
        false += paired_balanced_p(one, other, labels) < 0.05
    assert false <= 28  # 5 % of 400, and two standard errors
