"""Parquet files of the Hugging Face hub: read with splits, classes and attributes, or refused in one line."""

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from temper.data import ShardSet, hub_parquet, write_shards
from temper.errors import DataError, ShardError

CLASSES = ["dog", "cat"]


def picture(row: int) -> bytes:
    buffer = io.BytesIO()
    pixels = np.random.default_rng(row).integers(0, 256, (6, 6, 3)).astype(np.uint8)
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def images(start: int, count: int) -> list[dict[str, Any]]:
    return [{"bytes": picture(row), "path": f"p{row}.png"} for row in range(start, start + count)]


def write(path: Path, names: list[str] | None = CLASSES, **columns: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    table = pa.table(columns)
    if names is not None:
        features = {"label": {"names": names, "_type": "ClassLabel"}, "image": {"_type": "Image"}}
        metadata = {"huggingface": json.dumps({"info": {"features": features}})}
        table = table.replace_schema_metadata(metadata)
    pq.write_table(table, path)
    return path


def test_splits_classes_and_attributes_are_kept(tmp_path: Path) -> None:
    for number in range(2):
        write(
            tmp_path / f"set/data/train-0000{number}-of-00002.parquet",
            image=images(20 * number, 20),
            label=[row % 2 for row in range(20)],
            group=[f"p{row // 4}" for row in range(20)],
            age=[row if row % 5 else None for row in range(20)],
        )
    write(
        tmp_path / "set/data/test-00000-of-00001.parquet",
        image=images(100, 6),
        label=[0, 1] * 3,
        group=[None] * 6,
        age=[7] * 6,
    )
    (tmp_path / "set/README.md").write_text("---\n")
    manifest = write_shards(tmp_path / "set", tmp_path / "out")
    assert manifest.classes == ["cat", "dog"]
    assert manifest.attributes == ["group", "age"]
    assert manifest.counts["test"] == {"cat": 3, "dog": 3}
    assert sum(sum(counts.values()) for counts in manifest.counts.values()) == 46
    shards = ShardSet.open(tmp_path / "out")
    rows = [row for group in shards.row_groups for row in shards.read(group).to_pylist()]
    for row in rows:
        number = int(row["image"]["path"].rpartition("-p")[2].removesuffix(".png"))
        assert row["image"]["bytes"] == picture(number), "kept byte for byte"
        assert manifest.classes[row["label"]] == CLASSES[number % 2]
        place = number % 20
        assert row["age"] == ("7" if number >= 100 else str(place) if place % 5 else None)
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == [], "nothing is left"


def test_one_file_and_labels_of_text_or_plain_numbers(tmp_path: Path) -> None:
    text = write(tmp_path / "a.parquet", None, img=images(0, 20), label=["x", "y"] * 10)
    assert write_shards(text, tmp_path / "a").classes == ["x", "y"]
    numbers = write(tmp_path / "b.parquet", None, image=images(0, 20), label=[3, 7] * 10)
    assert write_shards(numbers, tmp_path / "b").classes == ["3", "7"]


def test_images_without_bytes_are_refused_and_no_path_is_opened(tmp_path: Path) -> None:
    (tmp_path / "secret.png").write_bytes(picture(99))
    rows = [*images(0, 20), {"bytes": None, "path": str(tmp_path / "secret.png")}]
    path = write(tmp_path / "a.parquet", image=rows, label=[*[0, 1] * 10, 0])
    with pytest.raises(ShardError, match=r"0 skipped so far, 1 refused: more than 1\.0% of 21 images cannot"):
        write_shards(path, tmp_path / "out")
    manifest = write_shards(path, tmp_path / "out", max_bad_frac=0.05)
    assert sum(sum(counts.values()) for counts in manifest.counts.values()) == 20
    assert [one.reason for one in manifest.refused] == ["no bytes in row 20 of a.parquet"]
    alone = write(tmp_path / "b.parquet", image=rows[-1:] * 2, label=[0, 1])
    with pytest.raises(
        DataError, match=r"b\.parquet: no image has its bytes, and paths are not opened; save"
    ):
        write_shards(alone, tmp_path / "none")


def test_names_of_images_lead_nowhere(tmp_path: Path) -> None:
    rows = images(0, 20)
    rows[0]["path"], rows[1]["path"], rows[2]["path"] = "../../out.png", "x/\0.png", "notes.txt"
    manifest = write_shards(write(tmp_path / "a.parquet", image=rows, label=[0, 1] * 10), tmp_path / "out")
    assert manifest.files.startswith("files seen: 20 = 20 images")


COLUMNS: dict[str, dict[str, Any]] = {
    "no column of images": {"label": [0, 1]},
    r"2 columns of images \(a, b\)": {"a": images(0, 2), "b": images(2, 2), "label": [0, 1]},
    "no column 'label' of integers or text": {"image": images(0, 2), "label": [0.5, 1.0]},
    r"row 1 has the label 2; allowed: 0\.\.1": {"image": images(0, 2), "label": [0, 2]},
    r"row 0 has the label -1; allowed: 0\.\.1": {"image": images(0, 2), "label": [-1, 1]},
    "row 1 has no label": {"image": images(0, 2), "label": [0, None]},
    "one called 'file_name'": {"image": images(0, 2), "label": [0, 1], "file_name": ["a", "b"]},
}


@pytest.mark.parametrize("reason", COLUMNS)
def test_other_columns_are_refused(tmp_path: Path, reason: str) -> None:
    path = write(tmp_path / "a.parquet", **COLUMNS[reason])
    with pytest.raises(DataError, match=reason) as caught:
        write_shards(path, tmp_path / "out")
    assert str(path) in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_files_that_differ_are_refused(tmp_path: Path) -> None:
    write(tmp_path / "set/train.parquet", image=images(0, 4), label=[0, 1] * 2)
    write(tmp_path / "set/test.parquet", ["cat", "dog"], image=images(4, 4), label=[0, 1] * 2)
    with pytest.raises(DataError, match=r"its columns or classes are not those of"):
        write_shards(tmp_path / "set", tmp_path / "out")
    (tmp_path / "set/test.parquet").rename(tmp_path / "set/more.parquet")
    with pytest.raises(DataError, match=r"more\.parquet: its name has no split|not those of"):
        write_shards(tmp_path / "set", tmp_path / "out")


def test_shards_and_damaged_files_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "a.parquet", image=images(0, 20), label=[0, 1] * 10)
    write_shards(path, tmp_path / "out")
    with pytest.raises(DataError, match=r"would be ignored, because .*a\.parquet has labels; omit --labels"):
        write_shards(path, tmp_path / "labelled", labels=tmp_path / "labels.csv")
    with pytest.raises(DataError, match="shards already"):
        write_shards(tmp_path / "out", tmp_path / "again")
    content = path.read_bytes()
    (tmp_path / "b.parquet").write_bytes(b"PAR1 nothing")
    with pytest.raises(DataError, match=r"b\.parquet: not a readable Parquet file"):
        write_shards(tmp_path / "b.parquet", tmp_path / "b")
    (tmp_path / "c.parquet").write_bytes(
        content[:4] + bytes(len(content) // 2) + content[4 + len(content) // 2 :]
    )
    with pytest.raises(DataError, match=r"c\.parquet: "):
        write_shards(tmp_path / "c.parquet", tmp_path / "c")


def test_parquet_that_stands_for_much_more_is_not_unpacked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub_parquet, "MAX_GROUP_BYTES", 2**25)
    path = tmp_path / "bomb.parquet"
    zeros = pa.array([bytes(2**20)] * 40, pa.binary())
    image = pa.StructArray.from_arrays([zeros, pa.array(["a"] * 40)], names=["bytes", "path"])
    table = pa.table({"image": image, "label": pa.array(["a", "b"] * 20)})
    pq.write_table(table, path, compression="zstd", use_dictionary=False)
    assert path.stat().st_size < 2**20
    before = pa.total_allocated_bytes()
    with pytest.raises(DataError, match=r"bytes unpacked in one row group; allowed: 100,000,000 and"):
        write_shards(path, tmp_path / "out")
    assert pa.total_allocated_bytes() - before < 2**22
