import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from temper.data import ImageView, ShardSet, load_images, write_shards
from temper.errors import DataError, ShardError


def folders(root: Path, counts: dict[str, int]) -> Path:
    generator = np.random.default_rng(0)
    for name, count in counts.items():
        (root / name).mkdir(parents=True)
        for index in range(count):
            pixels = generator.integers(0, 256, (12, 20, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(root / name / f"{index}.png")
    return root


def test_layout_is_that_of_the_hugging_face_hub(tmp_path: Path) -> None:
    source = folders(tmp_path / "src", {"cat": 20, "dog": 40})
    manifest = write_shards(source, tmp_path / "out", images_per_shard=25)
    assert [shard.file for shard in manifest.shards] == [f"train-{i:05d}-of-00003.parquet" for i in range(3)]
    table = pq.read_table(tmp_path / "out" / manifest.shards[0].file)
    features = json.loads(table.schema.metadata[b"huggingface"])["info"]["features"]
    assert features["label"]["names"] == ["cat", "dog"]
    row = table.slice(0, 1).to_pylist()[0]
    assert row["image"]["bytes"] == (source / row["image"]["path"]).read_bytes()
    assert row["image"]["path"].startswith(["cat", "dog"][row["label"]])
    for shard in manifest.shards:
        content = (tmp_path / "out" / shard.file).read_bytes()
        assert (hashlib.sha256(content).hexdigest(), len(content)) == (shard.sha256, shard.bytes)


def test_splits_are_stratified_seeded_and_disjoint(tmp_path: Path) -> None:
    source = folders(tmp_path / "src", {"a": 20, "b": 40})
    first, again, other = (
        write_shards(source, tmp_path / name, seed=seed) for name, seed in (("1", 0), ("2", 0), ("3", 1))
    )
    assert first.counts["test"] == {"a": 4, "b": 8}
    assert sum(len(rows) for rows in first.splits.values()) == 60
    assert len({row for rows in first.splits.values() for row in rows}) == 60
    assert first.fingerprint == again.fingerprint != other.fingerprint


def test_bad_images_are_listed_or_stop_the_job(tmp_path: Path) -> None:
    source = folders(tmp_path / "src", {"a": 20, "b": 20})
    (source / "a/0.png").write_bytes((source / "a/0.png").read_bytes()[:60])
    (source / "b/note.jpg").write_text("no image")
    with pytest.raises(ShardError, match=r"more than 1.0% of 41 images cannot be used \(--max-bad"):
        write_shards(source, tmp_path / "out")
    assert not list(tmp_path.glob("*out*"))
    assert not list(tmp_path.glob(".*"))
    manifest = write_shards(source, tmp_path / "out", max_bad_frac=0.1)
    assert [bad.path for bad in manifest.skipped] == ["a/0.png", "b/note.jpg"]
    assert manifest.skipped[1].reason.startswith("not an image of a known format: supported are JPEG, PNG, ")


def test_files_beside_the_classes_may_be_few(tmp_path: Path) -> None:
    source = folders(tmp_path / "src", {"a": 12, "b": 12})
    for number in range(24):
        shutil.copy(source / "a/0.png", source / f"{number}.png")
    (source / "a/note.txt").write_text("does not count")
    with pytest.raises(
        ShardError,
        match=r"0 skipped so far, 24 refused: more than 10\.0% of 48 files .*\n  0\.png: lies in no",
    ):
        write_shards(source, tmp_path / "out", max_bad_frac=0)
    assert not (tmp_path / "out").exists()
    assert len(write_shards(source, tmp_path / "all", max_bad_frac=0.5).refused) == 24
    for number in range(2, 24):
        (source / f"{number}.png").unlink()
    assert len(write_shards(source, tmp_path / "few").refused) == 2
    (source / "b/0.png").write_bytes(b"no image")  # skipped, and with the others more than a tenth
    with pytest.raises(ShardError, match=r"1 skipped so far, 2 refused: more than 10\.0% of 26 files cannot"):
        write_shards(source, tmp_path / "out", max_bad_frac=0.05)


def test_a_class_too_small_to_split(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"class 'b' has 1 image.*too few; add images"):
        write_shards(folders(tmp_path / "src", {"a": 20, "b": 2}), tmp_path / "out")


def test_taken_destination_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    with pytest.raises(ShardError, match="already exists"):
        write_shards(folders(tmp_path / "src", {"a": 9, "b": 9}), tmp_path / "out")


def copied(digits: dict[str, Path], tmp_path: Path) -> Path:
    return Path(shutil.copytree(digits["target"], tmp_path / "copy"))


def test_damage_is_noticed(digits: dict[str, Path], tmp_path: Path) -> None:
    folder = copied(digits, tmp_path)
    shard = next(folder.glob("*.parquet"))
    content = bytearray(shard.read_bytes())
    content[100] ^= 1
    shard.write_bytes(content)
    with pytest.raises(ShardError, match="SHA-256 differs"):
        ShardSet.open(folder).verify()
    shard.write_bytes(content[:-1])
    with pytest.raises(ShardError, match="bytes, the manifest says"):
        ShardSet.open(folder)
    shard.unlink()
    with pytest.raises(ShardError, match="missing"):
        ShardSet.open(folder)
    with pytest.raises(ShardError, match="no shards here"):
        ShardSet.open(tmp_path / "nowhere")


def test_digits_come_back_pixel_by_pixel(digits: dict[str, Path]) -> None:
    shards = ShardSet.open(digits["target"])
    images = load_images(shards, "test", ImageView(8))
    assert images.images.shape == (len(shards.rows("test")), 3, 8, 8)
    table = pq.read_table(digits["target"] / shards.manifest.shards[0].file)
    for position in (0, 5, 17):
        path = table["image"][int(images.rows[position])]["path"].as_py()
        expected = np.asarray(Image.open(digits["images"] / path))
        assert np.array_equal(images.images[position][0], expected)
        assert shards.classes[images.labels[position]] == path.split("/")[0]


@pytest.mark.parametrize(
    ("name", "counts"),
    [("chest_xray", [100, 400]), ("magnetic_tile", None), ("traffic_signs", None)],
)
def test_real_images(name: str, counts: list[int] | None, real_images: Any, tmp_path: Path) -> None:
    manifest = write_shards(real_images(name), tmp_path / "out", size=64)
    assert not manifest.skipped
    if counts is not None:
        trained = [manifest.counts["train"][c] + manifest.counts["val"][c] for c in manifest.classes]
        assert trained == counts
    images = load_images(ShardSet.open(tmp_path / "out"), "val", ImageView(64))
    assert images.images.std() > 10


def test_shards_within_the_source_are_no_images_of_it(tmp_path: Path) -> None:
    source = folders(tmp_path / "photos", {"a": 12, "b": 12})
    (source / "stray.jpg").write_bytes((source / "a/0.png").read_bytes())
    within = write_shards(source, source / "shards")
    assert within.files == "files seen: 25 = 24 images + 0 skipped + 1 refused"
    again = write_shards(source, tmp_path / "out")
    assert again.fingerprint == within.fingerprint
    assert [bad.path for bad in again.refused] == ["shards/train-00000-of-00001.parquet", "stray.jpg"]
