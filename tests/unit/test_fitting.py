"""What `temper fit` decides before it trains: sizes, starts, epochs, trials, images; and what it refuses."""

import io
import json
import shlex
from dataclasses import replace
from inspect import signature
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from temper.cli import main
from temper.cli.app import shards as shards_command
from temper.cli.fit import fit as fit_command
from temper.cli.fit_watch import _plan_table
from temper.cluster.sweep.driver import tell_halt
from temper.cluster.sweep.session import Halt
from temper.cluster.sweep.trial_store import TrialStore, Watch
from temper.data import ShardSet, write_shards
from temper.errors import CheckpointError, DataError, Interrupted, ShardError, UsageError
from temper.fitting.choose import FITS, Material, best_fit
from temper.fitting.documents import batch_size, fit_document, fit_space, num_points, planned_document
from temper.fitting.driver import FitWatch, _material
from temper.fitting.look import Look, check_classes, look_at, make_shards
from temper.fitting.measure import MAX_IMAGES, measure, stratified_folds
from temper.fitting.outcome import Outcome, _commands
from temper.fitting.plan import (
    FEWEST_TESTED,
    FitPlan,
    Load,
    Measured,
    choose_plan,
    epochs_of,
    make_plan,
    makespan,
    needed_s,
    training_s,
    validated_every,
)
from temper.fitting.progress import Remaining
from temper.fitting.request import FitFolder, FitRequest, Reading
from temper.fitting.sizes import size_at_random, sizes_for
from temper.fitting.starts import Start, find_starts, networks_here
from temper.recipe import build_recipe
from temper.records import Depth, SweepFolder
from temper.run.open_data import open_data
from temper.search import SearchSpace, build_trials

LOAD = Load(num_batches=25, num_val=150, num_test=300, num_classes=6, num_slots=2, max_hardened=4)


def network(
    size: int = 96,
    score: float | None = 0.8,
    step_s: float = 0.4,
    backbone: str = "timm/tf_efficientnet_lite0",
) -> Measured:
    return Measured(
        backbone=backbone,
        weights="pretrained" if score is not None else None,
        image_size=size,
        score=score,
        step_s=step_s,
        attacked_step_s=3.5 * step_s,
        pass_s=step_s / 40,
    )


def look(**fields: Any) -> Look:
    known = {"name": "my photos", "num_train": 800, "num_val": 150, "num_test": 300, "long_side": 96}
    return Look.model_validate({**known, "classes": {"a": 700, "b": 100}, **fields})


def draw(folder: Path, counts: dict[str, int], size: tuple[int, int] = (40, 24)) -> Path:
    generator = np.random.default_rng(0)
    for name, count in counts.items():
        (folder / name).mkdir(parents=True)
        for index in range(count):
            pixels = generator.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{index}.png")
    return folder


@pytest.mark.parametrize(
    ("long_side", "own_size", "sizes"),
    [
        (96, 224, [64, 96, 128]),
        (32, 224, [64]),  # its own least size counts, however small the images are
        (224, 224, [64, 96, 128, 160, 224]),
        (500, None, [64, 96, 128, 160, 224]),
        (32, 32, [32]),
        (64, 32, [32, 64]),
        (224, 32, [32, 64]),
    ],
)
def test_sizes_are_near_those_of_the_images(long_side: int, own_size: int | None, sizes: list[int]) -> None:
    assert sizes_for(long_side, own_size) == sizes


@pytest.mark.parametrize(("long_side", "size"), [(4, 8), (8, 8), (28, 32), (32, 32), (64, 64), (500, 64)])
def test_small_networks_see_small_images(long_side: int, size: int) -> None:
    assert size_at_random(long_side) == size


def test_trainings_begin_as_slots_are_free() -> None:
    assert makespan([10, 4, 4, 4], 2) == 12
    assert makespan([10, 4, 4, 4], 1) == 22
    assert makespan([1], 8) == 1


def test_epochs_follow_from_steps_and_the_size_of_the_set() -> None:
    assert [epochs_of(600, batches) for batches in (1, 25, 600, 5000)] == [150, 24, 1, 1]
    assert [validated_every(epochs, is_hardened=True) for epochs in (1, 8, 9, 60)] == [1, 1, 2, 8]


@pytest.mark.parametrize("num_slots", [1, 2, 8])
@pytest.mark.parametrize("minutes", [4, 10, 20, 60, 240])
@pytest.mark.parametrize("step_s", [0.05, 0.4, 1.0])
def test_a_plan_fits_into_its_time_and_gives_most_of_it_to_hardening(
    num_slots: int, minutes: int, step_s: float
) -> None:
    load = Load(num_batches=25, num_val=150, num_test=300, num_classes=6, num_slots=num_slots, max_hardened=4)
    plan = make_plan(network(step_s=step_s), load, 60 * minutes)
    if plan is None:
        assert minutes < needed_s([network(step_s=step_s)], load) / 60 * 1.5
        return
    assert plan.total_s <= 60 * minutes
    assert plan.num_hardened * plan.hardened_s >= plan.plain_s * 0.9
    assert 1 <= plan.num_hardened <= 4
    assert plan.hardened_s == training_s(plan.start, load, plan.hardened_epochs, is_hardened=True)
    assert plan.test_images is None or FEWEST_TESTED <= plan.test_images < 300


def test_many_classes_take_more_steps_without_attacks_within_their_share_of_the_time() -> None:
    def steps(num_classes: int, minutes: float) -> int:
        plan = make_plan(network(), replace(LOAD, num_classes=num_classes), 60 * minutes)
        assert plan is not None
        return plan.plain_epochs * LOAD.num_batches

    assert [steps(num_classes, 240) for num_classes in (2, 10, 20, 1000)] == [600, 600, 1200, 1500]
    assert steps(20, 12) <= 1200
    assert steps(1000, 12) == steps(100, 12) < 1500


def test_more_time_gives_longer_trainings_and_then_more_of_them() -> None:
    plans = [make_plan(network(), LOAD, 60 * minutes) for minutes in (6, 12, 25, 60, 240)]
    assert all(plan is not None for plan in plans)
    found = [(plan.hardened_epochs, plan.num_hardened) for plan in plans if plan is not None]
    assert [epochs for epochs, _ in found] == sorted(epochs for epochs, _ in found)
    assert [count for _, count in found] == sorted(count for _, count in found)
    assert found[0][1] == 1
    assert found[-1] == (60, 4)  # all that the set needs, and all that the space offers
    assert [plan.is_short for plan in plans if plan is not None] == [True, True, True, False, False]


def test_a_short_plan_says_how_long_would_be_enough() -> None:
    plan = make_plan(network(), LOAD, 600)
    assert plan is not None
    assert plan.is_short
    assert plan.enough_minutes > 10
    longer = make_plan(network(), LOAD, 60 * plan.enough_minutes * 1.1)
    assert longer is not None
    assert not longer.is_short


def test_the_best_probe_that_can_be_trained_wins() -> None:
    small, large = network(32, 0.7, 0.05, "cifar_resnet20"), network(96, 0.9, 0.4)
    chosen = choose_plan([small, large], LOAD, 3000)
    assert chosen is not None
    assert chosen.start == large
    # Too slow for a training worth the name: the other one.
    chosen = choose_plan([small, network(224, 0.95, 5.0)], LOAD, 1200)
    assert chosen is not None
    assert chosen.start == small
    # Of equals the faster one.
    chosen = choose_plan([network(128, 0.905, 0.8), large], LOAD, 3600)
    assert chosen is not None
    assert chosen.start == large
    # Nothing is known of networks at random: the first that fits.
    slow, fast = network(64, None, 0.2, "resnet20"), network(64, None, 0.05, "resnet8")
    chosen = choose_plan([slow, fast], LOAD, 1200)
    assert chosen is not None
    assert chosen.start == slow
    assert choose_plan([large], LOAD, 60) is None
    assert needed_s([large, small], LOAD) < needed_s([large], LOAD)


def test_the_remaining_time_is_the_plan_s_at_first_and_then_the_measured() -> None:
    plan = make_plan(network(), LOAD, 1200)
    assert plan is not None
    remaining = Remaining(plan)
    assert remaining.seconds(0) == pytest.approx(plan.total_s)
    remaining.result("000", plan.hardened_epochs / 2)
    assert 0 < remaining.share < 1
    slow, fast = remaining.seconds(2 * plan.sweep_s), remaining.seconds(0.1 * plan.sweep_s)
    assert slow > fast > plan.evaluation_s
    for trial in ("baseline", *(f"{number:03d}" for number in range(plan.num_hardened))):
        remaining.ended(trial)
    assert remaining.seconds(1000) == pytest.approx(plan.evaluation_s)


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize(("has_source", "weights"), [(False, "pretrained"), (False, None), (True, None)])
def test_the_recipe_and_the_space_are_as_strong_as_asked_for(
    norm: Any, has_source: bool, weights: str | None, tmp_path: Path
) -> None:
    eps = 4 / 255 if norm == "linf" else 0.5
    request = FitRequest(images="photos", eps=eps, norm=norm, seed=3)
    plan = make_plan(network(score=0.8 if weights else None), LOAD, 3600)
    assert plan is not None
    document = fit_document(
        request,
        look(),
        tmp_path / "shards",
        tmp_path / "source" if has_source else None,
        backbone="resnet20",
        weights=weights,
        image_size=96,
    )
    document = planned_document(document, plan)
    recipe = build_recipe(document)
    assert (recipe.threat, recipe.seed) == (request.threat("colour"), 3)
    assert recipe.name == "my-photos"
    assert recipe.data.sampling == "balanced"
    assert recipe.selection_metric == "val/target/robust_balanced_acc"
    assert (recipe.pretrain is not None) == has_source
    space = fit_space(request, look(), plan, has_source=has_source)
    trials = build_trials(space, document, "space")
    assert len(trials) == min(plan.num_hardened, num_points(has_source))
    strengths = [trial.recipe.objective.adversary for trial in trials]
    assert strengths[0] is not None
    assert strengths[0].eps == pytest.approx(eps)
    assert strengths[0].norm == norm
    assert space.baseline is not None
    assert space.baseline["objective.adversary"] is None
    assert space.baseline["epochs"] == plan.plain_epochs
    assert space.max_minutes is not None


def test_even_classes_are_sampled_as_they_are(tmp_path: Path) -> None:
    assert not look(classes={"a": 15, "b": 10}).is_imbalanced
    even = look(classes={"a": 100, "b": 100})
    document = fit_document(
        FitRequest(images="x"), even, tmp_path, None, backbone="resnet8", weights=None, image_size=32
    )
    recipe = build_recipe(document)
    assert recipe.data.sampling == "uniform"
    assert recipe.selection_metric == "val/target/robust_acc"
    assert [batch_size(count) for count in (6, 60, 5000)] == [2, 15, 32]


def test_a_look_at_images_counts_and_sizes_them(tmp_path: Path) -> None:
    images = draw(tmp_path / "images", {"cup": 20, "plate": 40})
    shards = make_shards(images, tmp_path / "shards", size=None, seed=0)
    found = look_at(ShardSet.open(shards))
    assert (found.name, found.long_side, found.is_imbalanced) == ("images", 40, True)
    assert found.num_train + found.num_val + found.num_test == 60
    assert make_shards(shards, tmp_path / "other", size=None, seed=0) == shards
    assert make_shards(images, tmp_path / "shards", size=None, seed=0) == shards
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize(
    ("counts", "problem"),
    [
        ({"cup": 1, "plate": 9}, r"the class 'cup' has 1 training image; each needs 3 or more"),
        ({"cup": 2, "pan": 1, "plate": 9}, r"the class 'pan' has 1 training image \(and 1 more"),
        ({"cup": 9}, "at least two classes"),
        ({}, "at least two classes"),
    ],
)
def test_images_that_cannot_be_shared_out_are_refused(
    counts: dict[str, int], problem: str, tmp_path: Path
) -> None:
    (tmp_path / "images").mkdir()
    draw(tmp_path / "images", counts)
    with pytest.raises(DataError, match=problem):
        check_classes(tmp_path / "images")


def test_a_class_may_have_one_training_image_where_the_other_splits_have_folders(tmp_path: Path) -> None:
    for split in ("train", "val", "test"):
        draw(tmp_path / "images" / split, {"cup": 1, "plate": 9})
    check_classes(tmp_path / "images")


def test_starts_are_what_is_here_or_what_is_asked_for(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("TORCH_HOME", "HF_HOME"):
        monkeypatch.setenv(name, str(tmp_path / "empty"))
    monkeypatch.delenv("HF_HUB_CACHE", raising=False)
    weights = tmp_path / "weights"
    weights.mkdir()
    monkeypatch.setenv("TEMPER_WEIGHTS", str(weights))
    assert "cifar_resnet20" not in [one.name for one in networks_here()]
    (weights / "resnet20-12fca82f.th").write_bytes(b"its content is looked at when it is read")
    here = [one.name for one in networks_here()]
    assert here[0] == "cifar_resnet20"
    starts = find_starts(FitRequest(images="x"), 64)
    assert (starts[0].backbone, starts[0].weights, starts[0].sizes) == (
        "cifar_resnet20",
        "pretrained",
        (32, 64),
    )
    (own,) = find_starts(FitRequest(images="x", backbone="cifar_resnet20", weights="random", size=48), 64)
    assert (own.weights, own.sizes) == (None, (48,))
    (own,) = find_starts(FitRequest(images="x", backbone="resnet8"), 64)
    assert own.weights is None
    (own,) = find_starts(FitRequest(images="x", backbone="resnet8", weights="runs/old"), 64)
    assert own.weights == "runs/old"
    at_random = find_starts(FitRequest(images="x", weights="random"), 28)
    assert [(one.backbone, one.sizes) for one in at_random] == [("resnet20", (32,)), ("resnet8", (32,))]
    with pytest.raises(UsageError, match=r"no backbone 'resnet9' \(did you mean"):
        find_starts(FitRequest(images="x", backbone="resnet9"), 64)
    with pytest.raises(UsageError, match="name their network with --backbone"):
        find_starts(FitRequest(images="x", weights="old.pth"), 64)


def test_measuring_times_steps_and_scores_the_probe(digits: dict[str, Path], evaluated_run: Path) -> None:
    shards = ShardSet.open(digits["target"])
    request = FitRequest(images="x", eps=0.1)
    found = {}
    for weights in (None, str(evaluated_run)):
        document = fit_document(
            request,
            look_at(shards),
            digits["target"],
            None,
            backbone="resnet8",
            weights=weights,
            image_size=8,
        )
        found[weights] = measure(document, {"target": shards}, is_balanced=False)
    at_random, known = found.values()
    assert at_random.score is None
    assert known.score is not None
    assert known.score > 0.9
    for one in (at_random, known):
        assert 0 < one.step_s < one.attacked_step_s
        assert one.pass_s > 0


def test_folds_share_out_every_class_evenly() -> None:
    labels = np.repeat([0, 1, 2], [40, 9, 2])
    folds = stratified_folds(labels, seed=3)
    counts = [np.bincount(folds[labels == label], minlength=4).tolist() for label in range(3)]
    assert counts == [[10, 10, 10, 10], [3, 2, 2, 2], [1, 1, 0, 0]]
    assert np.array_equal(folds, stratified_folds(labels, seed=3))
    assert not np.array_equal(folds, stratified_folds(labels, seed=4))


def test_long_images_are_stretched_where_that_shows_more(tmp_path: Path, evaluated_run: Path) -> None:
    """The one of both ways whose probe is better, by the scores that each gets alone."""
    images = draw(tmp_path / "images", {"cup": 20, "plate": 20}, size=(60, 20))
    shards = make_shards(images, tmp_path / "shards", size=None, seed=0)
    found = look_at(ShardSet.open(shards))
    assert (found.aspect, found.is_square) == (3.0, False)
    material = Material(FitRequest(images=str(images), backbone="resnet8"), found, shards, None)
    start = Start("resnet8", str(evaluated_run), (8,))
    fits = {fit: build_recipe(material.document(start, 8, fit)).data.fit for fit in FITS}
    assert fits == {"pad": "pad", "stretch": "stretch"}
    best = best_fit(material, start, 8, FITS, material.open())
    scores = {
        fit: measure(material.document(start, 8, fit), material.open(), is_balanced=False).score
        for fit in FITS
    }
    assert best.score == max(scores.values())
    assert scores[best.fit] == best.score


def grey(folder: Path, mode: str = "L", count: int = 8) -> Path:
    """Two classes of noise without colour, in files of ``mode``."""
    generator = np.random.default_rng(0)
    for name in ("cup", "plate"):
        (folder / name).mkdir(parents=True)
        for index in range(count):
            pixels = generator.integers(0, 256, (24, 40), dtype=np.uint8)
            Image.fromarray(pixels).convert(mode).save(folder / name / f"p{index // 2}_{index}.png")
    return folder


@pytest.mark.parametrize(("mode", "channels"), [("L", "grey"), ("RGB", "grey"), ("colour", "colour")])
def test_grey_images_are_attacked_in_grey(mode: str, channels: str, tmp_path: Path) -> None:
    """Whatever the mode of their files; and the recipe, the space and its hardened trainings say so."""
    drawn = {"cup": 8, "plate": 8}
    images = draw(tmp_path / "a", drawn) if mode == "colour" else grey(tmp_path / "a", mode)
    shards = make_shards(images, tmp_path / "shards", size=None, seed=0)
    found = look_at(ShardSet.open(shards))
    assert found.channels == channels
    material = Material(FitRequest(images=str(images), eps=0.1, norm="l2"), found, shards, None)
    document = material.document(Start("resnet8", None, (8,)), 8)
    recipe = build_recipe(document)
    assert (recipe.threat.channels, recipe.threat.norm, recipe.threat.eps) == (channels, "l2", 0.1)
    assert ("channels" in recipe.resolved()["threat"]) == (channels == "grey")
    assert open_data(recipe).shards["target"].fingerprint == ShardSet.open(shards).fingerprint
    plan = make_plan(network(), LOAD, 1200)
    assert plan is not None
    space = fit_space(material.request, found, plan, has_source=False)
    trials = build_trials(space, planned_document(document, plan), "space")
    assert {trial.recipe.threat.channels for trial in trials} == {channels}
    console = Console(width=100, file=io.StringIO())
    console.print(_plan_table(found, plan))
    assert isinstance(console.file, io.StringIO)
    assert ("in grey, as the images are" in console.file.getvalue()) == (channels == "grey")


def test_one_image_with_colour_makes_a_set_of_colour(tmp_path: Path) -> None:
    images = grey(tmp_path / "images", "RGB")
    pixels = np.zeros((24, 40, 3), np.uint8)
    pixels[-1, -1, 2] = 1
    Image.fromarray(pixels).save(images / "cup/last.png")
    shards = make_shards(images, tmp_path / "shards", size=None, seed=0)
    assert look_at(ShardSet.open(shards)).channels == "colour"


def test_a_sweep_that_was_begun_in_colour_goes_on_in_colour(tmp_path: Path) -> None:
    """Of a temper that attacked all images so: what is said agrees with what is trained."""
    images = grey(tmp_path / "images")
    request, folder = FitRequest(images=str(images), eps=0.1), FitFolder(tmp_path / "fit")
    folder.claim(request)
    assert _material(folder, request, FitWatch()).look.channels == "grey"
    folder.sweep.path.mkdir()
    for threat, channels in (("{norm: linf, eps: 0.1}", "colour"), ("{eps: 0.1, channels: grey}", "grey")):
        folder.sweep.recipe.write_text(f"threat: {threat}\n")
        assert _material(folder, request, FitWatch()).look.channels == channels


def test_images_are_read_and_labelled_as_asked_for(tmp_path: Path) -> None:
    images = tmp_path / "images"
    images.mkdir()
    rows = ["file_name,label"]
    generator = np.random.default_rng(0)
    for index in range(24):
        deep = generator.integers(0, 1024, (12, 12)).astype(np.uint16)
        Image.fromarray(deep).save(images / f"p{index // 3}_{index}.png")
        rows.append(f"p{index // 3}_{index}.png,{'even' if index % 2 else 'odd'}")
    (tmp_path / "labels.csv").write_text("\n".join(rows))
    reading = Reading(
        depth=Depth(bits=12),
        labels=str(tmp_path / "labels.csv"),
        group="^(p[0-9]+)_",
        group_near_duplicates=True,
    )
    with pytest.raises(DataError, match="expected a folder for each of at least two classes"):
        make_shards(images, tmp_path / "shards", size=None, seed=0)
    manifest = ShardSet.open(
        make_shards(images, tmp_path / "shards", size=None, seed=0, reading=reading)
    ).manifest
    assert manifest.classes == ["even", "odd"]
    assert (manifest.depth, manifest.attributes) == (Depth(bits=12), ["group"])
    assert manifest.near_are_grouped
    by_hand = tmp_path / "by-hand"
    request = FitRequest(images=str(images), reading=reading)
    (words,) = [
        shlex.split(line)
        for line in _commands(FitFolder(tmp_path), request, Outcome([], [], [], []))
        if line.startswith("temper shards")
    ]
    with pytest.raises(SystemExit, match="0"):
        main([*words[1:3], str(by_hand), *words[4:]])
    assert ShardSet.open(by_hand).manifest == manifest


def test_links_and_huge_files_are_read_on_request(tmp_path: Path) -> None:
    grey(tmp_path / "elsewhere")
    (tmp_path / "images").mkdir()
    for name in ("cup", "plate"):
        (tmp_path / "images" / name).symlink_to(tmp_path / "elsewhere" / name)
    linked = Reading(follow_links=True)
    with pytest.raises(ShardError, match="link"):
        make_shards(tmp_path / "images", tmp_path / "a", size=None, seed=0)
    shards = make_shards(tmp_path / "images", tmp_path / "a", size=None, seed=0, reading=linked)
    assert sum(map(len, ShardSet.open(shards).manifest.splits.values())) == 16
    small = Reading(follow_links=True, max_pixels=24 * 40 - 1)
    with pytest.raises(ShardError, match="pixels"):
        make_shards(tmp_path / "images", tmp_path / "b", size=None, seed=0, reading=small)
    assert small.of_source == small
    assert Reading(group="x", depth=Depth(window=(0, 9)), labels="a").of_source == Reading()


def test_bad_images_are_allowed_on_request(tmp_path: Path) -> None:
    images = grey(tmp_path / "images")
    (images / "cup" / "broken.png").write_bytes(b"no image")
    with pytest.raises(ShardError, match="--max-bad"):
        make_shards(images, tmp_path / "a", size=None, seed=0)
    defaults = [signature(one).parameters["max_bad"].default for one in (shards_command, fit_command)]
    assert defaults == [Reading().max_bad, signature(write_shards).parameters["max_bad_frac"].default]
    lenient = Reading(max_bad=0.1)
    assert lenient.options == {"--max-bad": ["0.1"]}
    shards = make_shards(images, tmp_path / "a", size=None, seed=0, reading=lenient)
    assert len(ShardSet.open(shards).manifest.skipped) == 1


def test_a_wrong_label_file_can_be_mended_in_the_same_folder(tmp_path: Path) -> None:
    request, folder = FitRequest(images="photos"), FitFolder(tmp_path / "fit")
    other = FitRequest(images="photos", reading=Reading(group="^(p[0-9]+)_"))
    folder.claim(request)
    folder.claim(other)  # no shards were made yet
    folder.shards.mkdir()
    with pytest.raises(CheckpointError, match="holds another fit"):
        folder.claim(request)


def test_a_large_set_is_measured_on_a_part(tmp_path: Path) -> None:
    shards = ShardSet.open(
        make_shards(draw(tmp_path / "images", {"a": 30, "b": 60}), tmp_path / "shards", size=None, seed=0)
    )
    assert shards.training_subset(MAX_IMAGES, 0) is shards


def test_a_folder_holds_one_fit(tmp_path: Path) -> None:
    request, folder = FitRequest(images="photos"), FitFolder(tmp_path / "fit")
    with pytest.raises(CheckpointError, match=r"holds no fit \(fit.json is needed\)"):
        folder.read_request()
    folder.claim(request)
    folder.claim(request)
    assert folder.read_request() == request
    longer = FitRequest(images="photos", minutes=60)
    folder.claim(longer)  # nothing was planned yet
    assert folder.read_request() == longer
    with pytest.raises(CheckpointError, match=r"holds another fit .* `temper fit --resume"):
        folder.claim(FitRequest(images="others", minutes=60))
    folder.plan.touch()
    folder.claim(longer)
    with pytest.raises(CheckpointError, match="holds another fit"):
        folder.claim(request)
    folder.request.write_text("{")
    with pytest.raises(CheckpointError, match="cannot be read"):
        folder.read_request()
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken/notes.txt").touch()
    with pytest.raises(CheckpointError, match="already exists"):
        FitFolder(tmp_path / "taken").claim(request)


def test_a_plan_can_be_read_again() -> None:
    plan = make_plan(network(), LOAD, 1200)
    assert plan is not None
    assert FitPlan.model_validate(json.loads(plan.model_dump_json())) == plan


@pytest.mark.parametrize(
    ("watch", "resumes", "runs_the_rest"),
    [
        (
            FitWatch().resumed_by(FitFolder(Path("out")).resume_command).sweep,
            "temper fit --resume out",
            "temper fit --resume out",
        ),
        (Watch(), "temper sweep --resume out/sweep", "temper sweep --resume out/sweep --max-minutes MINUTES"),
    ],
    ids=["fit", "sweep"],
)
def test_a_halted_fit_is_resumed_as_a_fit(
    watch: Watch, resumes: str, runs_the_rest: str, tiny_recipe: Any
) -> None:
    grid = {"search": "grid", "max_minutes": 2, "parameters": {"optim.lr": {"grid": [0.1, 0.2]}}}
    space = SearchSpace.model_validate({**grid, "scheduler": None})
    book = TrialStore(SweepFolder(Path("out/sweep")), space, tiny_recipe().resolved(), "space")
    halt, stages = Halt(deadline=0.0), list[str]()
    assert halt.stop_all()
    tell_halt(halt, book, replace(watch, on_stage=stages.append))
    assert stages == [f"time is up after 2 minutes: 0 of 2 trials ended; run the rest with `{runs_the_rest}`"]
    halt.is_interrupted = True
    with pytest.raises(Interrupted, match=rf"0 of 2 trials ended, nothing is lost; resume with `{resumes}`$"):
        tell_halt(halt, book, watch)
