"""Near duplicates: found whatever happened to the file, and no false alarm on real images."""

import io
import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageEnhance

from temper.data import FoldSpec, ShardSet, write_shards
from temper.data.near_duplicates import (
    MAX_DISTANCE,
    MAX_NEIGHBOURS,
    _candidates,
    _frequencies,
    hashes_of,
    near_duplicates,
    thumbnail,
)


def scene(seed: int, side: int = 48) -> Image.Image:
    """Random colours, more of them in large patches than in small ones, as in photographs."""
    generator = np.random.default_rng(seed)
    layers = [
        Image.fromarray(generator.integers(0, 256, (count, count, 3), dtype=np.uint8)).resize((side, side), 3)
        for count in (3, 9)
    ]
    return Image.blend(*layers, 0.25)


def jpeg(image: Image.Image, quality: int) -> Image.Image:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return Image.open(buffer)


CHANGES = {
    "saved again": lambda image: jpeg(image, 60),
    "smaller": lambda image: image.resize((31, 31), Image.Resampling.BILINEAR),
    "larger": lambda image: image.resize((150, 150), Image.Resampling.BICUBIC),
    "brighter": lambda image: ImageEnhance.Brightness(image).enhance(1.08),
    "grey": lambda image: image.convert("L"),
    "noisy": lambda image: Image.fromarray(
        (np.asarray(image) + np.random.default_rng(0).normal(0, 5, (48, 48, 3))).clip(0, 255).astype(np.uint8)
    ),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
def test_a_changed_picture_is_found_among_others(change: Any) -> None:
    pictures = [scene(seed) for seed in range(40)]
    thumbnails = [thumbnail(image) for image in [*pictures, change(pictures[7]), change(pictures[30])]]
    assert near_duplicates(thumbnails).tolist() == [
        {7: 7, 30: 30, 40: 7, 41: 30}.get(index, -1) for index in range(42)
    ]


def test_chains_are_one_motif_and_pictures_without_contrast_are_none() -> None:
    first = scene(1)
    chain = [first, jpeg(first, 70), jpeg(jpeg(first, 70), 50)]
    flat = [Image.new("L", (20, 20), grey) for grey in (0, 0, 128, 255)]
    found = near_duplicates([thumbnail(image) for image in [*flat, *chain]])
    assert found.tolist() == [-1] * 4 + [4] * 3
    assert near_duplicates([]).tolist() == []


def test_candidates_are_all_pairs_within_the_distance() -> None:
    generator = np.random.default_rng(0)
    hashes = generator.integers(0, 2**63, 600, dtype=np.uint64)
    for index in range(300):
        flips = generator.choice(64, index % 7, replace=False)
        hashes[300 + index] = hashes[index] ^ np.uint64(sum(1 << int(bit) for bit in flips))
    first, second = np.triu_indices(600, 1)
    near = np.bitwise_count(hashes[first] ^ hashes[second]) <= MAX_DISTANCE
    expected = set(zip(first[near].tolist(), second[near].tolist(), strict=True))
    assert 200 < len(expected) < 250
    assert set(map(tuple, _candidates(hashes).tolist())) == expected


def test_a_set_of_one_motif_is_compared_with_few_neighbours() -> None:
    hashes = np.full(2000, 12345, np.uint64)
    assert len(_candidates(hashes)) <= 2000 * MAX_NEIGHBOURS
    thumbnails = [thumbnail(scene(0))] * 2000
    assert set(near_duplicates(thumbnails).tolist()) == {0}


def test_the_hash_has_64_bits_of_which_half_are_set() -> None:
    pixels = np.frombuffer(b"".join(thumbnail(scene(seed)) for seed in range(500)), np.uint8)
    bits = np.unpackbits(hashes_of(_frequencies(pixels.reshape(-1, 16, 16))).view(np.uint8)).reshape(500, 64)
    assert bits.sum(1).tolist() == [32] * 500
    assert np.all((bits.mean(0)[1:] > 0.3) & (bits.mean(0)[1:] < 0.7)), "none is constant but the mean's"


@pytest.fixture
def set_with_near(tmp_path: Path) -> Path:
    """Of each of 30 scenes a second picture, saved again."""
    for seed in range(30):
        folder = tmp_path / "set" / "ab"[seed % 2]
        folder.mkdir(parents=True, exist_ok=True)
        scene(seed).save(folder / f"{seed}.png")
        jpeg(scene(seed), 70).save(folder / f"{seed}-again.jpg", quality=90)
    return tmp_path / "set"


def test_drawn_splits_and_folds_keep_them_together_on_request(set_with_near: Path, tmp_path: Path) -> None:
    manifest = write_shards(set_with_near, tmp_path / "apart")
    assert len(manifest.near_duplicates or ()) == 30
    assert manifest.copies == []
    assert manifest.near_across_splits
    grouped = write_shards(set_with_near, tmp_path / "together", group_near_duplicates=True)
    assert grouped.near_across_splits == []
    shards = ShardSet.open(tmp_path / "together")
    folds = [FoldSpec(index=index, count=3).apply(shards).manifest for index in range(3)]
    assert [fold.near_across_splits for fold in folds] == [[]] * 3
    assert FoldSpec(index=0, count=3).apply(ShardSet.open(tmp_path / "apart")).manifest.near_across_splits


def test_manifests_without_them_still_load(set_with_near: Path, tmp_path: Path) -> None:
    write_shards(set_with_near, tmp_path / "shards")
    file = tmp_path / "shards/manifest.json"
    document = json.loads(file.read_text())
    for name in ("near_duplicates", "near_are_grouped", "attributes", "straddling"):
        del document[name]
    file.write_text(json.dumps(document))
    shards = ShardSet.open(tmp_path / "shards")
    assert shards.manifest.near_duplicates is None
    assert len(np.unique(shards.groups)) == 60


@pytest.mark.parametrize("name", ["chest_xray", "pneumoniamnist", "sign_digits", "cifar10"])
def test_no_false_alarm_on_real_images(real_images: Any, name: str) -> None:
    files = sorted(path for path in real_images(name).rglob("*") if path.suffix in (".jpg", ".png"))
    assert len(files) > 1000
    thumbnails = []
    for path in files:
        with Image.open(path) as image:
            thumbnails.append(thumbnail(image))
    assert np.all(near_duplicates(thumbnails) == -1)


def test_tiles_that_were_photographed_twice_are_found(real_images: Any) -> None:
    """Of magnetic tiles there are several exposures, each a file with a number close to the next one's."""
    files = sorted(real_images("magnetic_tile").rglob("*.jpg"))
    thumbnails = []
    for path in files:
        with Image.open(path) as image:
            thumbnails.append(thumbnail(image))
    numbers = near_duplicates(thumbnails)
    found = np.flatnonzero(numbers >= 0)
    assert len(found) > 150
    exposures = np.array([int(path.stem.rpartition("_")[2]) for path in files])
    spread = [np.ptp(exposures[numbers == number]) for number in np.unique(numbers[found])]
    assert np.median(spread) < 100, "of 360,000 numbers"


def test_planted_leaks_are_caught_and_a_clean_set_raises_no_alarm(
    real_images: Any, tmp_path: Path, run_cli: Any
) -> None:
    """Bytes, pixels, patient, near duplicate and two labels: five of five."""
    source = tmp_path / "signs"
    folders = {split: sorted((real_images("sign_digits") / split).iterdir()) for split in ("train", "test")}
    for split in ("train", "test"):
        for digit in "01":
            files = sorted((folders[split][int(digit)]).iterdir())[:20]
            (source / split / digit).mkdir(parents=True)
            for index, file in enumerate(files):
                shutil.copy(file, source / split / digit / f"{split}{digit}p{index // 4}_{index}.jpg")
    pattern = r"^(.*p\d+)_"
    assert alarms(run_cli(source, tmp_path / "clean", pattern)) == []
    own = sorted((source / "train/0").iterdir())
    other = source / "test/0"
    shutil.copy(own[0], other / "bytesp0_0.jpg")
    with Image.open(own[1]) as image:
        image.save(other / "pixelsp0_0.png")
    with Image.open(own[2]) as image:
        image.resize((50, 50)).save(other / "nearp0_0.jpg", quality=80)
    shutil.copy(own[3], source / "train/1/labelsp0_0.jpg")
    (other / "test0p0_0.jpg").rename(other / "train0p4_99.jpg")
    found = alarms(run_cli(source, tmp_path / "leaking", pattern))
    assert [line.partition(":")[0] for line in found] == [
        "the same picture in several splits",
        "the same picture in several splits",
        "the same picture in several classes",
        "a group in several splits",
        "nearly the same in several splits",
    ]
    assert "bytesp0_0.jpg" in "".join(found[:2])
    assert "pixelsp0_0.png" in "".join(found[:2])
    assert "labelsp0_0.jpg" in found[2]
    assert re.fullmatch(r"a group in several splits: 'train0p4' \(4 in (train|val), 1 in test\)", found[3])
    assert "nearp0_0.jpg" in found[4]


def alarms(lines: list[str]) -> list[str]:
    return [line for line in lines if line.startswith(("the same picture", "a group", "nearly the same"))]


@pytest.fixture
def run_cli(capfd: Any) -> Any:
    """`temper shards` in this process: its lines on the console."""

    def run(source: Path, destination: Path, pattern: str) -> list[str]:
        from temper.cli.app import shards

        shards(source, destination, group=pattern)
        return str(capfd.readouterr().err).splitlines()

    return run
