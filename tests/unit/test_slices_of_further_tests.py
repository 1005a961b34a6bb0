"""Slices of a further test set: the same as of the main one, in the record, verified, on board and card."""

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from tests.unit.brightness import ZOO, save_picture

from temper.cluster.evaluate import evaluate_external
from temper.data import write_shards
from temper.leaderboard import build_leaderboard
from temper.leaderboard.slices import OF_SLICES
from temper.records import read_outcomes, read_record
from temper.run.external_model import ExternalModelSpec
from temper.run.verify import verify_record

SLICES = "attribute/site"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A main set without attributes, and a further one whose images of site "east" fool the model easily."""
    folder = tmp_path_factory.mktemp("further")
    (folder / "zoo.py").write_text(ZOO)
    generator = np.random.default_rng(0)
    rows = []
    for which in ("main", "other"):
        for split in ("train", "val", "test"):
            for name, sign in (("bright", 1), ("dark", -1)):
                (folder / which / split / name).mkdir(parents=True)
                for index in range(20):
                    site = ("west", "east")[index % 2] if which == "other" else "west"
                    file = f"{split}/{name}/{index}.png"
                    save_picture(folder / which / file, sign, site, generator)
                    rows += [f"{file},p-{split}-{name}-{index},{site}"] if which == "other" else []
    (folder / "other/metadata.csv").write_text("\n".join(["file_name,group,site", *rows]) + "\n")
    for which in ("main", "other"):
        write_shards(folder / which, folder / f"shards/{which}")
    document = {
        "name": "zoo",
        "model": f"{folder}/zoo.py:build",
        "shards": folder / "shards/main",
        "tests": {"other": folder / "shards/other"},
        "image_size": 8,
        "threat": {"norm": "linf", "eps": 0.03},
        "evaluation": {"suite": "quick"},
    }
    evaluate_external(ExternalModelSpec.model_validate(document), folder / "run")
    alone = ExternalModelSpec.model_validate(document | {"name": "alone", "tests": {}})
    evaluate_external(alone, folder / "alone")
    return folder


def problems(folder: Path, run: Path) -> dict[str, str]:
    checks = verify_record(run, model=f"{folder}/zoo.py:build").checks
    return {check.name: check.detail for check in checks if not check.passed}


def test_the_record_has_them(folder: Path) -> None:
    record = read_record(folder / "run/record.json")
    (other,) = record.tests
    assert (record.slices, record.unsliced) == ([], [])
    assert other.unsliced == ["group"]
    east, west = other.slices or []
    assert (east.value, west.value) == ("east", "west")
    assert (west.robust_acc.count, west.robust_acc.total, east.robust_acc.total) == (20, 20, 20)
    assert east.robust_acc.value < 0.2
    assert east.robust_gap is not None
    assert east.robust_gap.is_significant
    assert east.robust_gap.value == pytest.approx(east.robust_acc.value - west.robust_acc.value)
    assert read_outcomes(folder / "run/outcomes-other.parquet")[SLICES].to_pylist().count("east") == 20


def test_they_are_verified(folder: Path, tmp_path: Path) -> None:
    assert problems(folder, folder / "run") == {}

    def changed(name: str, **update: Any) -> Path:
        shutil.copytree(folder / "run", tmp_path / name)
        file = tmp_path / name / "record.json"
        document = json.loads(file.read_text())
        document["tests"][0] |= update
        file.write_text(json.dumps(document))
        return file.parent

    written = json.loads((folder / "run/record.json").read_text())["tests"][0]["slices"]
    flattered = changed("flattered", slices=[written[1] | {"value": "east"}, written[1]])
    assert "tests.other.slices" in problems(folder, flattered)["further test sets"]
    left_out = changed("left_out", slices=None)
    assert "tests.other.slices" in problems(folder, left_out)["further test sets"]
    hidden = changed("hidden", unsliced=["group", "site"])
    assert "tests.other: unsliced" in problems(folder, hidden)["images"]
    moved = changed("moved")
    outcomes = pq.read_table(moved / "outcomes-other.parquet")
    place = outcomes.column_names.index(SLICES)
    sites = outcomes[SLICES].to_pylist()
    pq.write_table(outcomes.set_column(place, SLICES, [sites[::-1]]), moved / "outcomes-other.parquet")
    assert "have another 'attribute/site' than the shards" in problems(folder, moved)["images"]


def test_a_record_from_before_is_verified_as_before(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder / "run", tmp_path / "run")
    outcomes = tmp_path / "run/outcomes-other.parquet"
    pq.write_table(pq.read_table(outcomes).drop_columns([SLICES]), outcomes)
    file = tmp_path / "run/record.json"
    document = json.loads(file.read_text())
    for name in ("slices", "unsliced"):
        del document["tests"][0][name]
    file.write_text(json.dumps(document))
    assert read_record(file).tests[0].slices is None
    assert set(problems(folder, tmp_path / "run")) == {"file outcomes of other"}, "whose hash is that of ours"


def test_board_and_card_show_them(folder: Path, tmp_path: Path) -> None:
    build_leaderboard([folder / "run", folder / "alone"], tmp_path)
    (east, _) = read_record(folder / "run/record.json").tests[0].slices or []
    with (tmp_path / "leaderboard.csv").open(newline="") as file:
        rows = {row["name"]: row for row in csv.DictReader(file)}
    values = {name: rows["zoo"][f"tests/other/{name}"] for name in OF_SLICES}
    assert (values["worst_slice"], values["worst_slice_images"]) == ("site: east", "20")
    assert float(values["worst_slice_robust_acc"]) == east.robust_acc.value
    assert values["different_slices"].startswith("site: east robust ")
    assert {rows["alone"][f"tests/other/{name}"] for name in OF_SLICES} == {""}
    assert "worst_slice" not in rows["zoo"], "the main set has none"
    markdown = (tmp_path / "leaderboard.md").read_text()
    assert "| zoo on other" in markdown
    index = (tmp_path / "index.html").read_text()
    assert index.count('data-sort="n">worst slice</th>') == 1
    assert "<bdi>site</bdi>: <bdi>east</bdi>" in index
    card = next(path for path in (tmp_path / "models").iterdir() if "zoo" in path.name).read_text()
    assert "<h3>Slices of <bdi>other</bdi></h3>" in card
    assert "Worst: site <bdi>east</bdi>" in card
    assert "site</bdi> <bdi>east</bdi> differs from the other images: robust accuracy" in card
