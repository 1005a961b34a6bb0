"""YAML and JSON from outside: nothing is executed, nothing explodes, and records hold numbers."""

import json
import os
import socket
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from temper.cluster.sweep.trial_store import read_begun
from temper.errors import CheckpointError, RecipeError, RecordError, SearchSpaceError, TemperError
from temper.recipe import load_recipe
from temper.records import (
    RunFolder,
    SweepFolder,
    read_crossval,
    read_ledger,
    read_outcomes,
    read_record,
    read_saved_images,
    sha256_of,
)
from temper.records.outcomes import read_columns
from temper.safe_load import parse_json, parse_yaml, read_json
from temper.search import load_space
from temper.spec import parse_assignments, read_yaml
from temper.training import read_state

ROOT = Path(__file__).parents[2]
TINY = (ROOT / "jobs/recipes/tiny.yaml").read_text(encoding="utf-8")


def bomb(levels: int) -> str:
    """Ten aliases of ten aliases ...: 10^levels values in a few hundred bytes."""
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, levels)]
    return "\n".join(lines)


def merge_bomb(levels: int) -> str:
    lines = ["a0: &a0 {x: 1}"]
    lines += [f"a{n}: &a{n} {{<<: [{', '.join([f'*a{n - 1}'] * 10)}]}}" for n in range(1, levels)]
    return "\n".join(lines)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (bomb(9), r"its aliases expand to more than 100,000 values; write them out"),
        (merge_bomb(9), r"its aliases expand to more than 100,000 values"),
        ("a: &a [*a]", r"nested more than 64 deep"),
        ("[" * 5000, r"nested more than 64 deep"),
        ("a: " + "{a: " * 70 + "1" + "}" * 70, r"nested more than 64 deep"),
        ("x: " + "1" * 300_000, r"300,003 characters; allowed: 262,144"),
        ("x: " + "1" * 5000, "a number of 5,000 digits"),
        ("when: 2024-13-45", r"month must be in 1..12"),
        ("name: a\nepochs: 1\nname: b", r"line 3: 'name' is given twice; keep one"),
        ("!!python/object/apply:os.system ['touch {0}']", r"could not determine a constructor for the tag"),
        ("!!python/object/new:subprocess.Popen [[touch, '{0}']]", r"could not determine a constructor"),
        ("!!python/name:os.system", r"could not determine a constructor"),
        ("a: \x00", r"not valid YAML"),
        ("{[1]: 2}", r"unhashable key"),
        ("- 1", r"expected a mapping of fields, got list"),
        ("", r"expected a mapping of fields, got NoneType"),
    ],
    ids=lambda value: value[:24],
)
@pytest.mark.parametrize("read", [load_recipe, load_space], ids=["recipe", "space"])
def test_yaml_that_executes_or_explodes(
    tmp_path: Path, read: Callable[[Path], Any], text: str, message: str
) -> None:
    path, executed = tmp_path / "bad.yaml", tmp_path / "executed"
    path.write_text(text.replace("{0}", str(executed)), encoding="utf-8")
    tracemalloc.start()
    with pytest.raises((RecipeError, SearchSpaceError), match=message) as caught:
        read(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert str(path) in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1
    assert not executed.exists()
    assert peak < 32 * 2**20


def test_aliases_that_people_write_still_work() -> None:
    assert parse_yaml("a: &a {x: 1}\nb: *a\nc: {<<: *a, y: 2}") == {
        "a": {"x": 1},
        "b": {"x": 1},
        "c": {"x": 1, "y": 2},
    }


def test_every_yaml_of_the_repository_reads_as_before() -> None:
    files = [
        *ROOT.glob("jobs/recipes/*.yaml"),
        ROOT / "jobs/runtime_env.yaml",
        *ROOT.glob("search_spaces/*.yaml"),
        ROOT / "cluster.yaml",
    ]
    assert len(files) > 10
    for file in files:
        assert parse_yaml(file.read_text()) == yaml.safe_load(file.read_text())


@pytest.mark.parametrize("value", [bomb(9), "[" * 3000, "2024-13-45", "1" * 5000])
def test_overrides_from_the_command_line(value: str) -> None:
    with pytest.raises(RecipeError, match=r"^--set epochs=.* the value is not valid YAML$") as caught:
        parse_assignments([f"epochs={value}"])
    assert len(str(caught.value)) < 300


def test_an_error_does_not_repeat_a_huge_value(tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_text(TINY.replace("epochs: 2", f"epochs: {'x' * 100_000}"))
    with pytest.raises(RecipeError, match=r"'epochs': .*\.\.\. \(100,002 characters\)") as caught:
        load_recipe(tmp_path / "r.yaml")
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize("text", ["1: 2", "? [a, b]\n: 3", "null: 1", "true: 1", "data: {1: 2}"])
def test_keys_that_are_no_names(tmp_path: Path, text: str) -> None:
    (tmp_path / "r.yaml").write_text(text)
    with pytest.raises(RecipeError, match=r"r\.yaml"):
        load_recipe(tmp_path / "r.yaml")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[" * 100_000, "nested more than 64 deep"),
        ('{"a":' * 70 + "1" + "}" * 70, "nested more than 64 deep"),
        ('{"a": NaN}', "NaN is not a number of JSON"),
        ('{"a": -Infinity}', "-Infinity is not a number of JSON"),
        ('{"a": 1e999}', "the number 1e999 is out of range"),
        ('{"a": ' + "9" * 5000 + "}", "a number of 5,000 digits; allowed: 1000"),
        ('{"a": -' + "9" * 1000 + "}", "a number of 1,001 digits"),
        ('{"a": ["\\ud800"]}', r"'\\ud800' holds half a character"),
        ('{"\\uDFFF": 1}', r"'\\udfff' holds half a character"),
        (b"\xff\xfe", "utf-8"),
        ("", "Expecting value"),
    ],
    ids=["lists", "objects", "nan", "inf", "float", "int", "negative", "surrogate", "key", "bytes", "empty"],
)
def test_json_that_is_none(text: str | bytes, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_json(text)


@pytest.mark.parametrize("seed", ["9" * 5000, "0x" + "f" * 100_000, "-" + "1" * 1001])
def test_numbers_without_end_are_one_line(tmp_path: Path, seed: str) -> None:
    (tmp_path / "r.yaml").write_text(TINY.replace("seed: 0", f"seed: {seed}"))
    with pytest.raises(RecipeError, match=r"r.yaml: not YAML of this kind \(a number of .* digits") as caught:
        load_recipe(tmp_path / "r.yaml")
    assert len(str(caught.value)) < 300


def test_whole_characters_are_read_however_they_are_written() -> None:
    assert parse_json('["\\ud83d\\ude00", "\\\\ud800"]') == ["\U0001f600", "\\ud800"]


@pytest.mark.parametrize("kind", ["device", "pipe", "socket"])
def test_what_is_no_regular_file_is_not_waited_for(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "record.json"
    with socket.socket(socket.AF_UNIX) as there:
        if kind == "device":
            path.symlink_to("/dev/zero")
        elif kind == "pipe":
            os.mkfifo(path)
        else:
            there.bind(str(path))
        for read in (read_record, read_ledger, read_outcomes):
            with pytest.raises(RecordError, match=r"record.json"):
                read(path)
        with pytest.raises(RecordError, match=r"record.json"):
            read_saved_images(path)
        with pytest.raises(OSError, match=r"not a regular file|No such device"):
            sha256_of(path)
        with pytest.raises(RecipeError, match=r"record.json"):
            load_recipe(path)


def test_parquet_that_stands_for_gigabytes_is_not_unpacked(tmp_path: Path) -> None:
    path = tmp_path / "outcomes.parquet"
    zeros = pa.table({"row": pa.array(np.zeros(2_000_000, np.int64))})
    with pq.ParquetWriter(path, zeros.schema, compression="zstd") as writer:
        for _ in range(60):
            writer.write_table(zeros)
    assert path.stat().st_size < 2**20
    for read in (read_outcomes, lambda path: read_columns(path, ["row"])):
        before = pa.total_allocated_bytes()
        with pytest.raises(RecordError, match=r"120,000,000 values, .*allowed: 100,000,000"):
            read(path)
        assert pa.total_allocated_bytes() - before < 2**24


def test_json_that_is_huge_is_not_read(tmp_path: Path) -> None:
    with (tmp_path / "record.json").open("wb") as file:
        file.truncate(65 * 2**20)  # a hole: no disk is used
    tracemalloc.start()
    with pytest.raises(ValueError, match=r"68,157,440 bytes; allowed: 67,108,864"):
        read_json(tmp_path / "record.json")
    assert tracemalloc.get_traced_memory()[1] < 2**20
    tracemalloc.stop()
    with pytest.raises(RecordError, match=r"record\.json: not readable as JSON \(68,157,440 bytes"):
        read_record(tmp_path / "record.json")


HOSTILE = {
    "deep": "[" * 100_000,
    "deep inside": '{"schema_version": 1, "recipe": ' + '{"a":' * 500 + "1" + "}" * 500 + "}",
    "nan": '{"schema_version": 1, "recipe": {"lr": NaN}}',
    "a list": "[1, 2]",
    "wrong types": '{"schema_version": 1, "name": 7, "recipe": []}',
    "not UTF-8": b"\xff\xfe{}",
    "half": '{"schema_version": 1, "na',
}


@pytest.mark.parametrize("content", HOSTILE.values(), ids=HOSTILE.keys())
@pytest.mark.parametrize(
    ("name", "read", "error"),
    [
        ("record.json", read_record, RecordError),
        ("crossval.json", read_crossval, RecordError),
        ("ledger.jsonl", read_ledger, RecordError),
        ("state.json", lambda path: read_state(path.parent), CheckpointError),
        ("points.jsonl", lambda path: read_begun(SweepFolder(path.parent)), RecordError),
    ],
    ids=["record", "crossval", "ledger", "state", "points"],
)
def test_hostile_records(
    tmp_path: Path, name: str, read: Callable[[Path], Any], error: type[TemperError], content: str | bytes
) -> None:
    path = tmp_path / name
    # With a line end: without one it is the half line of a crash, which a ledger leaves out.
    path.write_bytes((content.encode() if isinstance(content, str) else content) + b"\n")
    with pytest.raises(error, match=name) as caught:
        read(path)
    assert len(str(caught.value)) < 3000


ROW = {
    "trial": "00000",
    "recipe_hash": "0" * 16,
    "status": "finished",
    "overrides": {},
    "metrics": {"epoch": 1.0},
    "cost": {},
}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ('"metrics": {"epoch": NaN}', "line 2: not a ledger row .*NaN"),
        ('"metrics": {"epoch": "high"}', r"line 2: not a ledger row \('metrics.epoch'"),
        ('"status": "won"', r"line 2: not a ledger row \('status'"),
        ('"overrides": {"lr": Infinity}', "line 2: not a ledger row .*Infinity"),
        ('"cost": ' + "[" * 5000 + "]" * 5000, "line 2: not a ledger row .*deep"),
    ],
)
def test_a_ledger_names_the_line_that_is_wrong(tmp_path: Path, change: str, message: str) -> None:
    good = json.dumps(ROW)
    field = change.partition(":")[0].strip('"')
    bad = json.dumps({name: value for name, value in ROW.items() if name != field})[:-1] + f", {change}}}"
    path = tmp_path / "ledger.jsonl"
    path.write_text(f"{good}\n{bad}\n{good}\n")
    with pytest.raises(RecordError, match=rf"ledger\.jsonl, {message}"):
        read_ledger(path)
    path.write_text(f"{good}\n{bad[: len(bad) // 2]}")
    assert len(read_ledger(path)) == 1


def test_a_point_is_no_path(tmp_path: Path) -> None:
    folder = SweepFolder(tmp_path)
    for trial in ("../../etc", "a", "", "1/2", "-1"):
        folder.points.write_text(json.dumps({"trial": trial, "recipe_hash": "0", "overrides": {}}) + "\n")
        with pytest.raises(RecordError, match=r"line 1: not a point"):
            read_begun(folder)


def test_a_line_end_of_unicode_ends_no_line(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    path.write_text(json.dumps({**ROW, "error": "a\u2028b\x85c"}, ensure_ascii=False) + "\n")
    assert read_ledger(path)[0].error == "a\u2028b\x85c"


def test_a_run_folder_with_a_recipe_that_explodes(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    run.recipe.write_text(bomb(9))
    with pytest.raises(RecipeError, match=r"recipe\.yaml: not YAML of this kind \(its aliases"):
        read_yaml(run.recipe)


def mutations(content: bytes, count: int, seed: int) -> Iterator[bytes]:
    """``content`` with one byte changed, cut off, or some bytes of it doubled, at seeded random places."""
    generator = np.random.default_rng(seed)
    for _ in range(count):
        place, kind = int(generator.integers(len(content))), int(generator.integers(4))
        if kind < 2:
            changed = bytearray(content)
            changed[place] ^= int(generator.integers(1, 256))
            yield bytes(changed)
        elif kind == 2:
            yield content[:place]
        else:
            yield content[: place + 20] + content[place:]


def ledger_lines() -> bytes:
    return "".join(json.dumps({**ROW, "trial": f"{number:05d}"}) + "\n" for number in range(5)).encode()


@pytest.mark.parametrize(
    ("name", "content", "read"),
    [
        ("tiny.yaml", TINY.encode(), load_recipe),
        ("joint.yaml", (ROOT / "search_spaces/joint.yaml").read_bytes(), load_space),
        ("ledger.jsonl", ledger_lines(), read_ledger),
    ],
    ids=["recipe", "space", "ledger"],
)
def test_any_byte_of_a_file_that_changes_ends_in_no_traceback(
    tmp_path: Path, name: str, content: bytes, read: Callable[[Path], Any]
) -> None:
    refused: list[str] = []
    path = tmp_path / name
    for changed in mutations(content, 300, seed=0):
        path.write_bytes(changed)
        try:
            read(path)
        except TemperError as problem:
            refused.append(str(problem))
    assert len(refused) > 60
    assert all(name in reason for reason in refused)


def test_any_byte_of_a_record_that_changes_ends_in_no_traceback(evaluated_run: Path, tmp_path: Path) -> None:
    refused: list[str] = []
    path = tmp_path / "record.json"
    for changed in mutations((evaluated_run / "record.json").read_bytes(), 300, seed=1):
        path.write_bytes(changed)
        try:
            read_record(path)
        except RecordError as problem:
            refused.append(str(problem))
    assert len(refused) > 100
    assert all("record.json" in reason for reason in refused)
