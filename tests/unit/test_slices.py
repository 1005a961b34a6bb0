"""Accuracy per value of each attribute: in the record, recomputed from its outcomes, and on the card."""

import csv
import json
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.unit.brightness import ZOO, save_picture

from temper.advice.words import p_value
from temper.cluster.evaluate import evaluate_external
from temper.data import write_shards
from temper.formats import points
from temper.leaderboard import build_leaderboard
from temper.leaderboard.slices import OF_SLICES
from temper.records import (
    EvaluationRecord,
    Proportion,
    SliceRecord,
    read_outcomes,
    read_record,
    worst_slice,
)
from temper.run.external_model import ExternalModelSpec
from temper.run.slices import MAX_VALUES
from temper.run.verify import check_images, verify_record
from temper.run.verify.load import reopen
from temper.statistics import fisher_exact, holm, slices_of, wilson
from temper.verification import check_record, read_evidence


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Dark and bright images; at the site "east" they are so grey that a small attack fools the model."""
    folder = tmp_path_factory.mktemp("slices")
    (folder / "zoo.py").write_text(ZOO)
    generator = np.random.default_rng(0)
    rows = []
    for split in ("train", "val", "test"):
        for name, sign in (("bright", 1), ("dark", -1)):
            (folder / "set" / split / name).mkdir(parents=True)
            for index in range(30):
                site = ("west", "east", "")[index % 3]
                file = f"{split}/{name}/{index}.png"
                save_picture(folder / "set" / file, sign, site, generator)
                known = [f"p-{split}-{name}-{index}", site, f"{index}-{split}-{name}"]
                rows.append(",".join([file, *known, "old" if index < 4 else "new"]))
    (folder / "set/metadata.csv").write_text("\n".join(["file_name,group,site,date,camera", *rows]) + "\n")
    write_shards(folder / "set", folder / "shards")
    document = {
        "name": "zoo",
        "model": f"{folder}/zoo.py:build",
        "shards": folder / "shards",
        "image_size": 8,
        "threat": {"norm": "linf", "eps": 0.03},
        "evaluation": {"suite": "quick", "allow_leakage": True},
    }
    evaluate_external(ExternalModelSpec.model_validate(document), folder / "run")
    return folder / "run"


def found(record: EvaluationRecord) -> dict[str, SliceRecord]:
    return {f"{one.attribute}={one.value}": one for one in record.slices}


def test_the_record_has_each_value_of_each_attribute(run: Path) -> None:
    record = read_record(run / "record.json")
    slices = found(record)
    assert not any(name.startswith("date=") for name in slices), f"60 values, more than {MAX_VALUES}"
    assert list(slices)[:2] == ["site=east", "site=west"]
    assert {"camera=new", "camera=old"} < set(slices)
    assert not any(name.startswith("group=") for name in slices), "groups of a few images are no slices"
    assert slices["site=west"].robust_acc == wilson(20, 20)
    assert slices["site=east"].robust_acc.value < 0.2
    assert slices["site=east"].clean_acc.total == 20, "images of unknown site are in none"
    outcomes = read_outcomes(run / "outcomes.parquet")
    site = np.array(outcomes["attribute/site"].to_pylist())
    robust = np.array(outcomes["robust"].to_pylist())
    assert slices["site=east"].robust_acc == wilson(int(robust[site == "east"].sum()), 20)
    worst = worst_slice(record.slices)
    assert worst is not None
    assert (worst.attribute, worst.value) == ("site", "east")


def test_each_slice_has_its_gap_to_the_other_images(run: Path) -> None:
    record = read_record(run / "record.json")
    slices = found(record)
    outcomes = read_outcomes(run / "outcomes.parquet")
    robust = np.array(outcomes["robust"].to_pylist())
    is_east = np.array(outcomes["attribute/site"].to_pylist()) == "east"
    gap = slices["site=east"].robust_gap
    assert gap is not None
    assert gap.value == pytest.approx(robust[is_east].mean() - robust[~is_east].mean())
    assert gap.is_significant
    assert gap.p < gap.p_adjusted < 0.05, "one of several"
    camera = slices["camera=old"].robust_gap
    assert camera is not None
    assert not camera.is_significant
    assert not slices["camera=old"].is_different
    assert record.unsliced == ["group", "date"]


def test_gaps_are_corrected_together() -> None:
    generator = np.random.default_rng(0)
    site = generator.choice(["a", "b", "c"], 300)
    columns = {
        "correct": np.ones(300, bool),
        "robust": generator.random(300) < np.where(site == "a", 0.4, 0.6),
        "attribute/site": site,
    }
    slices = slices_of(columns)
    gaps = [gap for one in slices for gap in (one.clean_gap, one.robust_gap) if gap is not None]
    assert [gap.p_adjusted for gap in gaps] == holm([gap.p for gap in gaps])
    assert len(gaps) == 6
    assert [gap.p for gap in gaps[::2]] == [1.0] * 3, "all are right without an attack"
    whole = slices_of({**columns, "attribute/site": np.full(300, "one")})
    assert (whole[0].clean_gap, whole[0].robust_gap) == (None, None), "no image is outside of it"


@pytest.mark.parametrize(
    ("one", "other", "p"),
    [
        ((1, 10), (11, 14), 0.0027595),
        ((3, 4), (1, 4), 0.4857143),  # Fisher's tea, two-sided: 34 of 70
        ((8, 10), (1, 6), 0.0349650),
        ((0, 5), (0, 7), 1.0),
        ((5000, 10000), (5000, 10000), 1.0),
    ],
)
def test_fisher_exact(one: tuple[int, int], other: tuple[int, int], p: float) -> None:
    assert fisher_exact(wilson(*one), wilson(*other)) == pytest.approx(p, rel=1e-4)
    assert fisher_exact(wilson(*other), wilson(*one)) == pytest.approx(p, rel=1e-4)


def test_fisher_exact_sums_the_tables_that_are_no_likelier() -> None:
    generator = np.random.default_rng(0)
    for _ in range(200):
        num, num_rest = generator.integers(1, 40, 2).tolist()
        count, count_rest = int(generator.integers(0, num + 1)), int(generator.integers(0, num_rest + 1))
        successes = count + count_rest
        ways = [
            math.comb(num, part) * math.comb(num_rest, successes - part)
            for part in range(max(0, successes - num_rest), min(successes, num) + 1)
        ]
        here = math.comb(num, count) * math.comb(num_rest, count_rest)
        exact = sum(one for one in ways if one <= here) / sum(ways)
        found = fisher_exact(wilson(count, num), wilson(count_rest, num_rest))
        assert found == pytest.approx(exact, rel=1e-9)


def test_slices_are_recomputed_from_the_outcomes_and_the_shards(run: Path, tmp_path: Path) -> None:
    checks = {check.name: check for check in verify_record(run, model=f"{run.parent}/zoo.py:build").checks}
    assert checks["slices"].passed
    assert checks["images"].passed
    assert checks["columns"].passed
    file = tmp_path / "record.json"
    document = json.loads((run / "record.json").read_text())
    for one in document["slices"]:
        if one["value"] == "east":
            one["robust_acc"] = wilson(19, 20).model_dump()
    for other in run.iterdir():
        if other.is_file() and other.name != "record.json":
            (tmp_path / other.name).write_bytes(other.read_bytes())
    file.write_text(json.dumps(document))
    again = verify_record(tmp_path, model=f"{run.parent}/zoo.py:build").checks
    assert [check.name for check in again if not check.passed and check.name == "slices"] == ["slices"]


@pytest.mark.parametrize("change", ["gap", "no gap", "unsliced", "older"])
def test_gaps_are_recomputed_too(run: Path, tmp_path: Path, change: str) -> None:
    document = json.loads((run / "record.json").read_text())
    for one in document["slices"]:
        if change == "gap" and one["value"] == "east":
            one["robust_gap"]["p_adjusted"] = 0.5
        if change in ("no gap", "older"):
            del one["clean_gap"], one["robust_gap"]
    if change == "unsliced":
        document["unsliced"] = ["group"]
    if change == "older":
        del document["unsliced"]
    for other in run.iterdir():
        if other.is_file():
            (tmp_path / other.name).write_bytes(other.read_bytes())
    (tmp_path / "record.json").write_text(json.dumps(document))
    evidence = read_evidence(tmp_path / "record.json")
    opened = reopen(evidence, f"{run.parent}/zoo.py:build")
    assert not isinstance(opened, str)
    checks = [*check_record(tmp_path / "record.json"), check_images(evidence, opened[0])]
    failed = [check.name for check in checks if not check.passed and check.name in ("slices", "images")]
    assert failed == {"unsliced": ["images"], "older": []}.get(change, ["slices"])


def test_the_card_names_the_worst_slice(run: Path, tmp_path: Path) -> None:
    build_leaderboard([run], tmp_path / "out")
    card = next((tmp_path / "out/models").iterdir()).read_text()
    assert "Worst: site <bdi>east</bdi>" in card
    assert "<bdi>camera</bdi>: <bdi>old</bdi>" in card
    text = " ".join(re.sub("<[^>]+>", "", card).split())
    east = found(read_record(run / "record.json"))["site=east"].robust_gap
    assert east is not None
    assert re.search(r"site east differs from the other images: robust accuracy .\d+\.\d points \(p ", text)
    assert f"{points(east.value)}*" in text
    assert "camera old differs" not in text
    assert "Attributes without slices (groups, and those with too many values): group, date." in text
    index = (tmp_path / "out/index.html").read_text()
    assert 'data-sort="n">worst slice</th>' in index
    assert "<bdi>site</bdi>: <bdi>east</bdi>" in index


def test_csv_and_markdown_have_the_worst_slice_and_the_gaps(
    run: Path, evaluated_run: Path, tmp_path: Path
) -> None:
    """Beside a model without slices, whose cells are empty."""
    build_leaderboard([run, evaluated_run], tmp_path / "out")
    with (tmp_path / "out/leaderboard.csv").open(newline="") as file:
        rows = {row["name"]: row for row in csv.DictReader(file)}
    slices = found(read_record(run / "record.json"))
    east, zoo = slices["site=east"], rows["zoo"]
    assert east.robust_gap is not None
    assert (zoo["worst_slice"], zoo["worst_slice_images"]) == ("site: east", str(east.robust_acc.total))
    for name, value in {
        "acc": east.robust_acc.value,
        "low": east.robust_acc.low,
        "high": east.robust_acc.high,
        "gap": east.robust_gap.value,
        "p_adjusted": east.robust_gap.p_adjusted,
    }.items():
        assert float(zoo[f"worst_slice_robust_{name}"]) == value
    gap = f"robust {points(east.robust_gap.value)} ({p_value(east.robust_gap.p_adjusted)})"
    assert f"site: east {gap}" in zoo["different_slices"]
    assert "camera" not in zoo["different_slices"]
    others = [value for name, value in rows["tiny"].items() if "slice" in name]
    assert others == [""] * len(OF_SLICES)
    text = (tmp_path / "out/leaderboard.md").read_text()
    (line,) = [line for line in text.splitlines() if "site: east" in line]
    assert f"| {points(east.robust_gap.value)} (p " in line
    assert text.count("worst slice") == 1, "the other board has no slices"


def test_records_without_slices_still_load(run: Path, tmp_path: Path) -> None:
    document = json.loads((run / "record.json").read_text())
    del document["slices"]
    (tmp_path / "record.json").write_text(json.dumps(document))
    assert read_record(tmp_path / "record.json").slices == []


def test_small_slices_are_not_called_the_worst() -> None:
    def one(value: str, count: int, total: int) -> SliceRecord:
        share: Proportion = wilson(count, total)
        return SliceRecord(attribute="site", value=value, clean_acc=share, robust_acc=share)

    worst = worst_slice([one("a", 0, 9), one("b", 5, 10), one("c", 50, 90)])
    assert worst is not None
    assert worst.value == "b"
    assert worst_slice([one("a", 0, 9)]) is None
    assert slices_of({"correct": np.ones(3, bool), "robust": np.ones(3, bool)}) == []


def test_without_attributes_there_are_no_slices_and_no_columns(evaluated_run: Any, tmp_path: Path) -> None:
    build_leaderboard([evaluated_run], tmp_path / "out")
    for name in ("index.html", "leaderboard.csv", "leaderboard.md"):
        assert not re.search("worst.slice", (tmp_path / "out" / name).read_text())
    assert read_record(evaluated_run / "record.json").slices == []
    assert not [
        name for name in read_outcomes(evaluated_run / "outcomes.parquet").column_names if "attribute" in name
    ]
