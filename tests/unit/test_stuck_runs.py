"""Runs that were killed, or whose files were damaged, go on or begin anew; nothing is stuck."""

import errno
import fcntl
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

import temper.cluster.holding
from temper.cluster.evaluate import evaluate_run
from temper.cluster.holding import hold
from temper.cluster.launch import launch
from temper.deployment.classifier import Classifier
from temper.errors import CheckpointError, ModelError, StorageError, TemperError
from temper.recipe import Recipe
from temper.records import RunFolder


class Killed(BaseException):
    """As SIGKILL: nothing is tidied up for it."""


def killed_after(number: int) -> Any:
    def report(metrics: Mapping[str, Any]) -> None:
        if metrics["epoch"] >= number:
            raise Killed

    return report


def losses(run: Path) -> list[float]:
    return [json.loads(line)["train/loss"] for line in RunFolder(run).metrics.read_text().splitlines()]


@pytest.fixture(scope="module")
def recipe(tiny_recipe: Any) -> Recipe:
    found: Recipe = tiny_recipe(epochs=3, evaluation__max_images=16)
    return found


@pytest.fixture(scope="module")
def killed(recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of three epochs that was ended after the second; not to be changed."""
    run = tmp_path_factory.mktemp("killed") / "run"
    with pytest.raises(Killed):
        launch(recipe, run, on_epoch=killed_after(1))
    return run


@pytest.fixture(scope="module")
def whole(recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same run that nothing ended; not to be changed."""
    run = tmp_path_factory.mktemp("whole") / "run"
    assert launch(recipe, run).is_settled
    return run


@pytest.fixture
def interrupted(killed: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(killed, tmp_path / "run"))


@pytest.fixture
def trained(whole: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "run"))


def test_a_run_killed_before_its_first_epoch_was_saved_begins_anew(
    recipe: Recipe, interrupted: Path, whole: Path, caplog: pytest.LogCaptureFixture
) -> None:
    shutil.rmtree(interrupted / "last")  # checkpoint/ is written first
    state = launch(recipe, interrupted)
    assert state.is_settled
    assert "interrupted before an epoch was saved; starting over" in caplog.text
    assert losses(interrupted) == losses(whole)


@pytest.mark.parametrize("name", ["recipe.yaml", "model.safetensors", "state.json"])
def test_half_files_of_a_killed_process_are_removed(
    recipe: Recipe, interrupted: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    rename = Path.replace

    def die(self: Path, target: Path) -> Path:
        if target.name == name:
            raise Killed
        return rename(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", die)
        with pytest.raises(Killed):
            launch(recipe, interrupted)
    assert [path.name.startswith(f".{name}.") for path in interrupted.rglob(".*.tmp")] == [True]
    launch(recipe, interrupted)
    assert not list(interrupted.rglob(".*.tmp"))


def test_the_start_of_another_recipe_is_left_alone(recipe: Recipe, interrupted: Path) -> None:
    shutil.rmtree(interrupted / "last")
    with pytest.raises(CheckpointError, match="holds another run"):
        launch(recipe.model_copy(update={"seed": 9}), interrupted)
    assert (interrupted / "checkpoint/model.safetensors").exists()


def test_a_damaged_state_says_what_to_do(recipe: Recipe, interrupted: Path) -> None:
    for content in ("", "{", "[]", '{"next_epoch": 1}', "\ud800"):
        (interrupted / "last/state.json").write_text(content, encoding="utf-8", errors="surrogatepass")
        with pytest.raises(
            CheckpointError, match=r"remove .*/last and run the same command again to start over"
        ) as told:
            launch(recipe, interrupted)
        assert "\n" not in str(told.value), content
        assert "pydantic" not in str(told.value), content
    shutil.rmtree(interrupted / "last")
    assert launch(recipe, interrupted).is_settled


@pytest.mark.parametrize("part", ["model", "optimizer"])
def test_a_flipped_bit_is_noticed(recipe: Recipe, interrupted: Path, part: str) -> None:
    (path,) = (interrupted / "last").glob(f"epoch-*.{part}.safetensors")
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=rf"{part}.safetensors: missing or damaged \(other bytes"):
        launch(recipe, interrupted)


def test_what_was_not_damaged_goes_on(recipe: Recipe, interrupted: Path, whole: Path) -> None:
    launch(recipe, interrupted)
    assert losses(interrupted) == losses(whole)


OWNER = """
import sys, time
from pathlib import Path
from temper.cluster.holding import hold
with hold(Path(sys.argv[1]), "training this run"):
    print("held", flush=True)
    time.sleep(60)
"""


def test_two_do_not_train_in_one_folder_and_a_dead_owner_holds_nothing(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(temper.cluster.holding, "PATIENCE_S", 0.3)
    run = RunFolder(tmp_path / "run")
    command = [sys.executable, "-c", OWNER, str(run.lock)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout is not None
        assert owner.stdout.readline() == "held\n"
        with pytest.raises(CheckpointError, match="run: another process is training or evaluating this run"):
            launch(recipe, run.path)
        assert [path.name for path in run.path.iterdir()] == [".lock"]
        owner.kill()
    assert launch(recipe, run.path).is_settled
    assert not run.lock.exists()


@pytest.mark.parametrize("kind", ["pipe", "folder", "link"])
def test_what_is_no_lock_is_named_and_not_waited_for(recipe: Recipe, tmp_path: Path, kind: str) -> None:
    run, other = RunFolder(tmp_path / "run"), tmp_path / "other"
    run.path.mkdir()
    other.write_text("mine")
    make = {"pipe": os.mkfifo, "folder": Path.mkdir, "link": lambda lock: lock.symlink_to(other)}
    make[kind](run.lock)
    with pytest.raises(StorageError, match=r"run/\.lock: cannot be written"):
        launch(recipe, run.path)
    assert other.read_text() == "mine"


def test_a_disk_without_locks_is_said_and_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def flock(file: Any, operation: int) -> None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    monkeypatch.setattr(fcntl, "flock", flock)
    with hold(tmp_path / ".lock", "training this run"):
        assert "this disk does not support locks" in caplog.text
    assert not (tmp_path / ".lock").exists()


@pytest.mark.parametrize("spoil", [os.mkfifo, Path.mkdir, lambda path: path.symlink_to("nowhere")])
def test_a_saved_position_that_is_no_file_says_what_to_do(
    recipe: Recipe, interrupted: Path, spoil: Callable[[Path], None]
) -> None:
    (path,) = (interrupted / "last").glob("epoch-*.model.safetensors")
    path.unlink()
    spoil(path)
    with pytest.raises(CheckpointError, match=r"remove .*/last and run the same command again to start over"):
        launch(recipe, interrupted)


@pytest.mark.parametrize("content", [b"\x8e\xff\n[]\n7\n", b"", b'{"epoch": "0"}\n{"epoch": 0'])
def test_a_damaged_log_of_epochs_stops_nothing(recipe: Recipe, interrupted: Path, content: bytes) -> None:
    log = RunFolder(interrupted).metrics
    log.write_bytes(log.read_bytes().splitlines(keepends=True)[0] + content)
    launch(recipe, interrupted)
    assert [json.loads(line)["epoch"] for line in log.read_text().splitlines()] == [1, 2, 3]
    assert evaluate_run(interrupted).robust_acc.count > 0


def test_a_log_that_is_a_pipe_is_not_waited_for(recipe: Recipe, interrupted: Path) -> None:
    log = RunFolder(interrupted).metrics
    log.unlink()
    os.mkfifo(log)
    with pytest.raises(StorageError, match=r"metrics\.jsonl: cannot be read \(not a regular file.*remove it"):
        launch(recipe, interrupted)


def test_a_flipped_bit_of_the_best_epoch_is_noticed_by_whoever_uses_it(
    tiny_recipe: Any, trained: Path, tmp_path: Path
) -> None:
    path = RunFolder(trained).checkpoint / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(content)
    damaged = r"checkpoint/model.safetensors: damaged \(other bytes than were saved\); put it back, or train"
    with pytest.raises(CheckpointError, match=damaged):
        evaluate_run(trained)
    with pytest.raises(CheckpointError, match=damaged):
        Classifier.open(trained)
    with pytest.raises(ModelError, match=r"model.safetensors is another file: its SHA-256 is"):
        launch(tiny_recipe(model__weights=str(trained)), tmp_path / "next")
    content[-3] ^= 1
    path.write_bytes(content)
    assert evaluate_run(trained).robust_acc.count > 0


def test_a_checkpoint_that_is_gone_says_what_to_do(trained: Path) -> None:
    (RunFolder(trained).checkpoint / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"model\.safetensors: missing; put it back, or train again"):
        evaluate_run(trained)


@pytest.mark.parametrize(
    "change",
    [lambda text: text[: text.index("evaluation:")], lambda text: text.replace("epochs: 3\n", "epochs: 9\n")],
)
def test_another_recipe_than_the_run_s_is_not_evaluated(trained: Path, change: Callable[[str], str]) -> None:
    place = RunFolder(trained).recipe
    place.write_text(change(place.read_text()))
    with pytest.raises(CheckpointError, match=r"recipe.yaml: not the recipe that this run was trained with"):
        evaluate_run(trained)
    with pytest.raises(CheckpointError, match=r"recipe.yaml: not the recipe that this run was trained with"):
        Classifier.open(trained)


def test_a_run_from_before_digests_of_the_best_epoch_is_used(trained: Path) -> None:
    state = RunFolder(trained).checkpoint / "state.json"
    document = json.loads(state.read_text())
    del document["best_sha256"]
    state.write_text(json.dumps(document))
    assert evaluate_run(trained).robust_acc.count > 0


def test_two_do_not_evaluate_into_one_folder(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(temper.cluster.holding, "PATIENCE_S", 0.3)
    for out in (None, tmp_path / "elsewhere"):
        where = RunFolder(out or trained)
        command = [sys.executable, "-c", OWNER, str(where.lock)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as owner:
            assert owner.stdout is not None
            assert owner.stdout.readline() == "held\n"
            with pytest.raises(CheckpointError, match="another process is training or evaluating this run"):
                evaluate_run(trained, out=out)
            assert not where.outcomes.exists()
            owner.kill()
    assert evaluate_run(trained).robust_acc.count > 0
    assert not RunFolder(trained).lock.exists()


def test_a_refused_run_leaves_no_folder(tiny_recipe: Any, tmp_path: Path) -> None:
    with pytest.raises(TemperError, match="no shards here"):
        launch(tiny_recipe(data__target=str(tmp_path / "nowhere")), tmp_path / "deep/run")
    assert list(tmp_path.iterdir()) == []
