"""A disk that is full, or that can no longer be written: real ones, for which it takes root to mount them."""

import os
import shutil
import subprocess
import sys
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


@pytest.fixture
def device(tmp_path: Path) -> Iterator[Path]:
    """A disk of 24 MiB with a device below it."""
    if os.geteuid() != 0:
        pytest.skip("only root can mount a disk")
    place, image = tmp_path / "device", tmp_path / "device.ext4"
    place.mkdir()
    with image.open("wb") as file:
        file.truncate(24 * 2**20)
    if shutil.which("mkfs.ext4") is None:
        pytest.skip("no ext4 here")
    subprocess.run(["mkfs.ext4", "-q", str(image)], check=True)
    mount("-o", "loop", str(image), str(place))
    yield place
    subprocess.run(["umount", "--lazy", str(place)], check=True)


def fill(disk: Path) -> None:
    with (disk / "ballast").open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError:
            return


def fail(disk: Path) -> None:
    """What the kernel does at an error of the device: nothing can be written, whoever has files open."""
    os.sync()
    mount("-o", "remount,abort", str(disk))


def recover(disk: Path) -> None:
    if (image := disk.with_suffix(".ext4")).exists():
        subprocess.run(["umount", "--lazy", str(disk)], check=True)
        subprocess.run(["e2fsck", "-fy", str(image)], capture_output=True, check=False)
        mount("-o", "loop", str(image), str(disk))
    (disk / "ballast").unlink(missing_ok=True)


@pytest.mark.parametrize(
    ("kind", "spoil", "reason"),
    [("disk", fill, "No space left on device"), ("device", fail, "Read-only file system")],
)
def test_a_disk_that_refuses_leaves_the_last_checkpoint_from_which_the_run_goes_on(
    kind: str,
    spoil: Callable[[Path], None],
    reason: str,
    request: pytest.FixtureRequest,
    tiny_recipe: Any,
    tmp_path: Path,
) -> None:
    disk: Path = request.getfixturevalue(kind)
    recipe = tiny_recipe(**FAST)
    launch(recipe, tmp_path / "undisturbed")

    def on_epoch(metrics: Any) -> None:
        if metrics["epoch"] == 1:
            spoil(disk)

    with pytest.raises(
        StorageError, match=rf"{kind}/run/\S+: cannot be written \({reason}.*; the previous content is intact"
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


def lines_of(path: Path) -> list[str]:
    return path.read_text().splitlines()


def test_a_line_that_was_cut_short_is_taken_back(tmp_path: Path) -> None:
    program = """
import resource, sys
from pathlib import Path
from temper.errors import StorageError
from temper.records import append_line
path = Path(sys.argv[1])
append_line(path, {"epoch": 0})
resource.setrlimit(resource.RLIMIT_FSIZE, (64, resource.RLIM_INFINITY))
try:
    append_line(path, {"epoch": 1, "reason": "x" * 100})
except StorageError as problem:
    print(problem)
append_line(path, {"epoch": 2})
"""
    command = [sys.executable, "-c", program, str(tmp_path / "ledger.jsonl")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "ledger.jsonl: cannot be written (File too large)" in done.stdout
    assert lines_of(tmp_path / "ledger.jsonl") == ['{"epoch": 0}', '{"epoch": 2}']


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
    assert lines_of(disk / "ledger.jsonl") == ['{"trial": 1}'], "half a line spoils the next"
    assert (disk / "state.json").read_text() == "the former one"
    assert not list(disk.glob(".*.tmp"))


def test_a_folder_in_the_place_of_a_file_is_named_and_nothing_is_left(tmp_path: Path) -> None:
    (tmp_path / "state.json").mkdir()
    with pytest.raises(StorageError, match=r"state.json: cannot be written \(Is a directory\)"):
        write_atomic(tmp_path / "state.json", "{}")
    assert [path.name for path in tmp_path.iterdir()] == ["state.json"]


def test_a_folder_that_is_a_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("")
    with pytest.raises(StorageError, match=r"state.json: cannot be written \(.*\); the previous content"):
        write_atomic(tmp_path / "run/last/state.json", "{}")
