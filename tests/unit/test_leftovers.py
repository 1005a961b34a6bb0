"""What killed processes leave is removed by the next one; what living ones work in stays."""

import os
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

from temper.data import write_shards
from temper.leaderboard.serve import BoardServer
from temper.leftovers import held_folder, remove_leftovers

LONG_AGO = time.time() - 3600


def folder(path: Path) -> Path:
    path.mkdir(parents=True)
    (path / "part").write_text("x")
    os.utime(path, (LONG_AGO, LONG_AGO))
    return path


def test_what_nobody_holds_goes_and_what_is_held_or_young_stays(tmp_path: Path) -> None:
    dead, held, young = (tmp_path / f".a.{name}.tmp" for name in ("dead", "held", "young"))
    for one in (dead, held, young):
        folder(one)
    os.utime(young)
    target = folder(tmp_path / "elsewhere")
    (tmp_path / ".a.link.tmp").symlink_to(target)
    with held_folder(held):
        assert remove_leftovers(tmp_path, ".a.*.tmp") == [dead]
    assert held.is_dir()
    assert young.is_dir()
    assert (target / "part").exists()


def test_a_process_that_is_killed_lets_go(tmp_path: Path) -> None:
    left = folder(tmp_path / ".a.1.tmp")
    code = (
        "import sys, time; from pathlib import Path; from temper.leftovers import held_folder\n"
        "with held_folder(Path(sys.argv[1])): print('held', flush=True); time.sleep(60)"
    )
    process = subprocess.Popen([sys.executable, "-c", code, str(left)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    assert remove_leftovers(tmp_path, ".a.*.tmp") == []
    process.kill()
    process.communicate()
    assert remove_leftovers(tmp_path, ".a.*.tmp") == [left]


def test_shards_remove_what_was_left_of_the_same_folder(digits: dict[str, Path], tmp_path: Path) -> None:
    own, other = folder(tmp_path / ".shards.12345678.tmp"), folder(tmp_path / ".others.12345678.tmp")
    write_shards(digits["images"], tmp_path / "shards")
    assert not own.exists()
    assert other.is_dir()


def test_serve_removes_what_a_killed_one_left(tmp_path: Path) -> None:
    left = folder(tmp_path / ".temper-serve-abc")
    with BoardServer(tmp_path, host="127.0.0.1", port=0, say=lambda _: None):
        assert not left.exists()
        assert len(list(tmp_path.glob(".temper-serve-*"))) == 1
    assert not list(tmp_path.glob(".temper-serve-*"))


def test_clients_that_leave_are_no_errors(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    import socket
    import struct
    import threading

    said: list[str] = []
    with BoardServer(tmp_path, host="127.0.0.1", port=0, say=said.append) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        host, _, port = server.url.removeprefix("http://").strip("/").partition(":")
        for request in (b"", b"GET / HTTP/1.1\r\nHo", b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"):
            client = socket.create_connection((host, int(port)))
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            client.sendall(request)
            client.close()  # with a reset
        assert urllib.request.urlopen(server.url, timeout=10).status == 200
        server.stop()
        thread.join()
    assert capfd.readouterr().err == ""
    assert not [line for line in said if "failed" in line]
