"""Folders that are written here and kept in S3."""

import json
import multiprocessing
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from temper.errors import CheckpointError, StorageError
from temper.records import append_line, write_atomic
from temper.storage import (
    Address,
    fetched,
    fetched_state,
    list_objects,
    mirrored,
    publish,
    read_bytes,
    write_bytes,
)
from temper.storage.objects import delete

Machine = Callable[[str], Path]


def names(place: str) -> set[str]:
    return {one.name for one in list_objects(Address.parse(place)) if not one.name.startswith(".")}


def epoch(folder: Path, number: int, size: int = 1000) -> None:
    """What training writes: weights that carry their epoch, then the state that speaks of them."""
    write_atomic(folder / f"last/epoch-{number}.safetensors", bytes([number]) * size)
    write_atomic(folder / "last/state.json", json.dumps({"epoch": number}))
    append_line(folder / "metrics.jsonl", {"epoch": number})
    (folder / f"last/epoch-{number - 1}.safetensors").unlink(missing_ok=True)


def wait_until(is_so: Callable[[], bool], seconds: float = 15) -> None:
    until = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < until, "it never came"
        time.sleep(0.05)


def test_what_is_written_arrives_meanwhile_and_at_the_end(bucket: str, machine: Machine) -> None:
    run = Path(f"{bucket}/runs/a")
    with mirrored(run) as folder:
        epoch(folder, 1)
        wait_until(lambda: "last/state.json" in names(f"{bucket}/runs/a"))
        assert names(f"{bucket}/runs/a") == {"last/epoch-1.safetensors", "last/state.json", "metrics.jsonl"}
        for number in (2, 3):
            epoch(folder, number)
        (folder / ".hidden").write_text("no")
        (folder / "pretrain").mkdir()
    assert names(f"{bucket}/runs/a") == {"last/epoch-3.safetensors", "last/state.json", "metrics.jsonl"}
    machine("b")
    there = fetched(run, without=frozenset())
    assert there != folder
    assert (there / "last/epoch-3.safetensors").read_bytes() == b"\3" * 1000
    assert len((there / "metrics.jsonl").read_text().splitlines()) == 3
    assert not (fetched(run, names=frozenset({"metrics.jsonl"})) / "pretrain").exists()


def test_a_run_s_state_is_its_small_files(bucket: str, machine: Machine) -> None:
    """A mirror leaves the runs within to others."""
    run = Path(f"{bucket}/runs/a")
    with mirrored(run) as folder:
        epoch(folder, 1)
        epoch(folder / "pretrain", 3)
    small = {"last/state.json", "metrics.jsonl"}
    assert names(str(Address.parse(run))) == {*small, "last/epoch-1.safetensors"}
    machine("b")
    there = fetched_state(run)
    found = {path.relative_to(there).as_posix() for path in there.rglob("*") if path.is_file()}
    assert {name for name in found if not name.startswith(".")} == small
    assert fetched_state(Path("runs/here")) == Path("runs/here")


def test_a_path_of_this_machine_stays_what_it_is(tmp_path: Path) -> None:
    with mirrored(tmp_path / "run") as folder:
        assert folder == tmp_path / "run"
    assert fetched(tmp_path / "run") == tmp_path / "run"
    publish(tmp_path / "run")


def test_the_storage_holds_a_whole_checkpoint_at_every_moment(bucket: str, proxy: Any) -> None:
    """Whatever a reader finds in ``state.json``, the weights that it speaks of are there."""
    place = Address.parse(f"{bucket}/run")
    with mirrored(Path(str(place))) as folder:
        for number in range(1, 25):
            proxy.fail("503", int(number % 7 == 0), "PUT")
            epoch(folder, number, size=100_000)
            state = read_bytes(place / "last/state.json")
            if state is not None:
                spoken = json.loads(state)["epoch"]
                found = read_bytes(place / f"last/epoch-{spoken}.safetensors")
                # It may have gone on between the two answers, but never back.
                newer = json.loads(read_bytes(place / "last/state.json") or b"")["epoch"]
                assert found == bytes([spoken]) * 100_000 or newer > spoken
            time.sleep(0.02)
    assert json.loads(read_bytes(place / "last/state.json") or b"") == {"epoch": 24}


def die_while_writing(place: str, num_epochs: int) -> None:
    with mirrored(Path(place)) as folder:
        for number in range(1, num_epochs + 1):
            epoch(folder, number)
        wait_until(lambda: read_bytes(Address.parse(place) / "last/state.json") is not None)
        epoch(folder, num_epochs + 1)  # not copied yet
        os._exit(9)


def kill(place: str, num_epochs: int) -> None:
    process = multiprocessing.get_context("spawn").Process(target=die_while_writing, args=(place, num_epochs))
    process.start()
    process.join(60)
    assert process.exitcode == 9


def test_after_a_kill_this_machine_goes_on_from_its_own_files_and_another_from_the_storage(
    bucket: str, machine: Machine
) -> None:
    run = Path(f"{bucket}/run")
    kill(str(Address.parse(run)), 3)
    machine("c")
    found = fetched(run, without=frozenset())
    number = json.loads((found / "last/state.json").read_text())["epoch"]
    assert number in (1, 2, 3)
    assert (found / f"last/epoch-{number}.safetensors").read_bytes() == bytes([number]) * 1000
    machine("a")
    with mirrored(run) as folder:
        assert json.loads((folder / "last/state.json").read_text()) == {"epoch": 4}, "newer than the storage"
    machine("b")
    with mirrored(run) as folder:
        assert json.loads((folder / "last/state.json").read_text()) == {"epoch": 4}
        epoch(folder, 5)
    machine("a")
    with mirrored(run) as folder:
        assert json.loads((folder / "last/state.json").read_text()) == {"epoch": 5}, "another has been at it"
        assert {path.name for path in (folder / "last").iterdir()} == {"epoch-5.safetensors", "state.json"}


def test_a_writer_that_was_replaced_stops(bucket: str, machine: Machine) -> None:
    run = Path(f"{bucket}/run")
    with (  # noqa: PT012  # it is closing that fails
        pytest.raises(StorageError, match=r"/run: another process started to write there"),
        mirrored(run) as old,
    ):
        epoch(old, 1)
        publish(old)
        machine("b")
        with mirrored(run) as new:
            epoch(new, 2)
        machine("a")
        epoch(old, 3)
    assert json.loads(read_bytes(Address.parse(run) / "last/state.json") or b"") == {"epoch": 2}


def test_an_outage_costs_nothing_but_time(bucket: str, proxy: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    run = Path(f"{bucket}/run")
    monkeypatch.setenv("TEMPER_STORAGE_LIMIT_S", "0.5")
    with mirrored(run) as folder:
        epoch(folder, 1)
        publish(folder)
        proxy.fail("drop", 10_000)
        epoch(folder, 2)
        with pytest.raises(StorageError, match="the local copy is complete and will be reused here"):
            publish(folder)
        with proxy.lock:
            proxy.faults.clear()
        epoch(folder, 3)
    assert names(str(Address.parse(run))) == {"last/epoch-3.safetensors", "last/state.json", "metrics.jsonl"}


def test_a_run_that_could_not_be_copied_is_taken_up_here(
    bucket: str, proxy: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Path(f"{bucket}/run")
    monkeypatch.setenv("TEMPER_STORAGE_LIMIT_S", "0.5")
    with pytest.raises(StorageError, match="local copy is complete"), mirrored(run) as folder:  # noqa: PT012
        epoch(folder, 1)
        publish(folder)
        proxy.fail("503", 10_000)
        epoch(folder, 2)
    with proxy.lock:
        proxy.faults.clear()
    assert json.loads(read_bytes(Address.parse(run) / "last/state.json") or b"") == {"epoch": 1}
    with mirrored(run) as folder:
        assert json.loads((folder / "last/state.json").read_text()) == {"epoch": 2}
    assert json.loads(read_bytes(Address.parse(run) / "last/state.json") or b"") == {"epoch": 2}


def test_a_reader_leaves_what_this_machine_writes(bucket: str, machine: Machine) -> None:
    tree, trial = Path(f"{bucket}/sweep"), Path(f"{bucket}/sweep/trials/1")
    with mirrored(tree, without=frozenset({"trials"})) as root, mirrored(trial) as folder:
        epoch(folder, 1)
        publish(folder)
        write_atomic(root / "ledger.jsonl", "{}\n")
        publish(root / "ledger.jsonl")
        assert names(str(Address.parse(tree))) >= {"ledger.jsonl", "trials/1/last/state.json"}
        epoch(folder, 2)
        fetched(tree, without=frozenset())
        assert json.loads((folder / "last/state.json").read_text()) == {"epoch": 2}
    machine("b")
    there = fetched(tree, names=frozenset({"state.json"}), without=frozenset())
    assert [path.relative_to(there).as_posix() for path in there.rglob("*") if path.is_file()] == [
        "trials/1/last/state.json"
    ]


def test_errors_speak_of_addresses(bucket: str) -> None:
    run = Path(f"{bucket}/run")
    with (
        pytest.raises(CheckpointError, match=rf"^{bucket}/run/last: no checkpoint$"),
        mirrored(run) as folder,
    ):
        raise CheckpointError(f"{folder / 'last'}: no checkpoint")


def test_what_somebody_removes_by_hand_is_not_put_back(bucket: str) -> None:
    run = Path(f"{bucket}/run")
    with mirrored(run) as folder:
        write_atomic(folder / "record.json", "{}")
        write_atomic(folder / "recipe.yaml", "seed: 0")
    delete(Address.parse(run) / "record.json")
    assert not (fetched(run) / "record.json").exists()
    with mirrored(run) as folder:
        assert [path.name for path in folder.iterdir() if not path.name.startswith(".")] == ["recipe.yaml"]
    write_bytes(Address.parse(run) / "recipe.yaml", b"seed: 10")
    with mirrored(run) as folder:
        assert (folder / "recipe.yaml").read_text() == "seed: 10"
    assert names(str(Address.parse(run))) == {"recipe.yaml"}


def test_what_is_gone_in_the_storage_goes_here(bucket: str, machine: Machine) -> None:
    place = Address.parse(f"{bucket}/run")
    for name in ("checkpoint/a", "checkpoint/b"):
        write_bytes(place / name, b"1")
    folder = fetched(Path(str(place)))
    delete(place / "checkpoint/a")
    assert fetched(Path(str(place))) == folder
    assert [path.name for path in folder.rglob("*") if path.is_file()] == ["b"]


def write_records(place: str, writer: int, count: int) -> None:
    for number in range(count):
        with mirrored(Path(f"{place}/model-{writer}-{number}")) as folder:
            write_atomic(folder / "record.json", json.dumps({"writer": writer, "number": number}))


def test_processes_that_write_records_to_one_prefix_lose_none(bucket: str, machine: Machine) -> None:
    context = multiprocessing.get_context("spawn")
    board = f"{bucket}/board"
    writers = [context.Process(target=write_records, args=(board, writer, 5)) for writer in range(2)]
    for process in writers:
        process.start()
    for process in writers:
        process.join(60)
        assert process.exitcode == 0
    machine("b")
    there = fetched(Path(board))
    found = [json.loads(path.read_text()) for path in there.rglob("record.json")]
    expected = [{"writer": writer, "number": number} for writer in range(2) for number in range(5)]
    assert sorted(found, key=str) == sorted(expected, key=str)
