"""A disk that is full, or that can no longer be written: real ones, for which it takes root to mount them."""

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from temper.cluster.launch import launch
from temper.errors import StorageError
from temper.records import append_line, write_atomic, write_once
from temper.training import read_state

Settings = dict[str, Any]
FAST = {
    "epochs": 3,
    "pretrain": None,
    "data.shots_per_class": 12,
    "validation.max_images": 16,
    "tracking.wandb": False,
    "tracking.tensorboard": False,
}


def mount(*arguments: str) -> None:
    done = subprocess.run(["mount", *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"no mount of its own: {done.stderr.strip()}")


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 12 MiB."""
    if os.geteuid() != 0:
        pytest.skip("only root can mount a disk")
    place = tmp_path / "disk"
    place.mkdir()
    mount("-t", "tmpfs", "-o", "size=12m", "tmpfs", str(place))
    yield place
    subprocess.run(["umount", "--lazy", str(place)], check=True)


def fill(disk: Path) -> None:
    with (disk / "ballast").open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError:
            return


def refuse(disk: Path) -> None:
    mount("-o", "remount,ro", str(disk))


def recover(disk: Path) -> None:
    mount("-o", "remount,rw", str(disk))
    (disk / "ballast").unlink(missing_ok=True)


@pytest.mark.parametrize(("spoil", "reason"), [(fill, "No space left on device"), (refuse, "Read-only file")])
def test_a_disk_that_refuses_leaves_the_last_checkpoint_from_which_the_run_goes_on(
    spoil: Callable[[Path], None], reason: str, disk: Path, tiny_recipe: Any, tmp_path: Path
) -> None:
    recipe = tiny_recipe(**FAST)
    launch(recipe, tmp_path / "undisturbed")

    def on_epoch(metrics: Any) -> None:
        if metrics["epoch"] == 1:
            spoil(disk)

    with pytest.raises(
        StorageError, match=rf"disk/run/\S+: cannot be written \({reason}.*; the previous content is intact"
    ):
        launch(recipe, disk / "run", on_epoch=on_epoch)
    assert read_state(disk / "run/last").next_epoch == 1
    assert not list(disk.rglob("*.tmp")), "half a file takes the room that is missing"
    recover(disk)
    seen: list[float] = []
    launch(recipe, disk / "run", on_epoch=lambda metrics: seen.append(metrics["epoch"]))
    assert seen == [2, 3]
    expected = (tmp_path / "undisturbed/checkpoint/model.safetensors").read_bytes()
    assert (disk / "run/checkpoint/model.safetensors").read_bytes() == expected


def test_writers_name_the_file_and_leave_what_was_there(disk: Path) -> None:
    write_atomic(disk / "state.json", "the former one")
    append_line(disk / "ledger.jsonl", {"trial": 1})
    fill(disk)
    for write in (write_atomic, write_once):
        with pytest.raises(StorageError, match=r"state\.json: cannot be written"):
            write(disk / "state.json", b"1" * 10_000)
    row = {"reason": "x" * 10_000}
    with pytest.raises(StorageError, match=r"ledger\.jsonl: cannot be written \(No space left"):
        append_line(disk / "ledger.jsonl", row)
    assert (disk / "state.json").read_text() == "the former one"
    assert not list(disk.glob(".*.tmp"))


def test_a_folder_that_is_a_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("")
    with pytest.raises(StorageError, match=r"state.json: cannot be written \(.*\); the previous content"):
        write_atomic(tmp_path / "run/last/state.json", "{}")
