"""A board folder lets in what was verified, keeps out the rest, and notices what was changed."""

import json
import re
import shutil
import socket
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from temper.cli import main
from temper.errors import RecordError, UsageError
from temper.leaderboard import build_leaderboard
from temper.leaderboard.serve import BoardServer
from temper.leaderboard.submit import check_board, submit_entry
from temper.records import SweepFolder, append_line, write_atomic
from temper.run.verify import verify_record
from temper.verification import VerificationRecord, verify_shallow


def deep(path: Path) -> VerificationRecord:
    return verify_record(path, num_sampled=8)


@pytest.fixture(scope="module")
def board(evaluated_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A board folder with one entry; not to be changed."""
    folder = tmp_path_factory.mktemp("board") / "entries"
    with pytest.raises(SystemExit) as end:
        main(["submit-entry", str(evaluated_run), str(folder), "--sample", "8"])
    assert not end.value.code
    return folder


def entry_of(board: Path) -> Path:
    (entry,) = (path for path in board.iterdir() if not path.name.startswith("."))
    return entry


def test_an_honest_entry_enters_with_its_small_files(board: Path) -> None:
    entry = entry_of(board)
    names = {path.name for path in entry.iterdir()}
    assert names == {
        "record.json", "entry.json", "outcomes.parquet", "adversarial.safetensors", "recipe.yaml",
        "chunks.json", "figure.png", "mistakes.png",
    }  # fmt: skip
    document = json.loads((entry / "entry.json").read_text())
    assert document["left_out"] == ["checkpoint"]
    assert document["verification"]["depth"] == "deep"
    assert check_board(board) == {entry.name: []}


def test_a_submitted_entry_is_verified_on_the_board(board: Path, vary: Any, tmp_path: Path) -> None:
    shutil.copytree(board, tmp_path / "in")
    entry = build_leaderboard([tmp_path / "in"], tmp_path / "out", require_verified=True).boards[0].entries[0]
    assert (entry.rank, entry.status) == (1, "verified")
    vary(tmp_path / "in", "smuggled", np.ones(64, bool))
    only = build_leaderboard([tmp_path / "in"], tmp_path / "out", require_verified=True).boards[0]
    assert [one.name for one in only.entries] == [entry.name]
    assert only.unverified[0].reasons == ["not submitted through `temper submit-entry`"]
    found = check_board(tmp_path / "in")
    assert "did not come through" in found["smuggled"][0]


def test_no_entry_twice(board: Path, evaluated_run: Path, tmp_path: Path) -> None:
    with pytest.raises(RecordError, match="already on the board, as tiny-"):
        submit_entry(evaluated_run, board, deep)
    renamed = tmp_path / "renamed"
    shutil.copytree(evaluated_run, renamed)
    edit(renamed / "record.json", lambda document: document.update(name="mine"))
    with pytest.raises(RecordError, match="already on the board, as tiny-"):  # by its outcomes
        submit_entry(renamed, board, deep)


def edit(path: Path, change: Callable[[Any], Any]) -> None:
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda d: d["robust_acc"].update(value=0.99), "verification failed .*robust accuracy"),
        (lambda d: d["files"]["outcomes"].update(sha256="0" * 64), "verification failed .*file outcomes"),
        (lambda d: d.update(status="blocked"), "blocked, so no board accepts it"),
        (lambda d: d["gates"][0].update(passed=False), "blocked, so no board accepts it"),
    ],
)
def test_tampered_and_blocked_records_stay_out(
    change: Callable[[Any], Any], words: str, evaluated_run: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    shutil.copytree(evaluated_run, run)
    edit(run / "record.json", change)
    with pytest.raises(RecordError, match=words):
        submit_entry(run, tmp_path / "board", deep)
    assert not list(tmp_path.glob("board/*"))


def test_an_entry_must_be_attacked_again(evaluated_run: Path, tmp_path: Path) -> None:
    with pytest.raises(RecordError, match="accepts only what was attacked again"):
        submit_entry(evaluated_run, tmp_path / "board", verify_shallow)
    with pytest.raises(UsageError, match="a board is a folder"):
        submit_entry(evaluated_run, evaluated_run / "record.json", deep)


CHANGES: dict[str, tuple[Callable[[Path], Any], str]] = {
    "a number": (
        lambda entry: edit(entry / "record.json", lambda d: d["robust_acc"].update(value=0.99)),
        "record.json was changed after it was submitted",
    ),
    "the outcomes": (
        lambda entry: (entry / "outcomes.parquet").write_bytes(b"x"),
        "outcomes.parquet was changed after it was submitted",
    ),
    "a missing file": (lambda entry: (entry / "figure.png").unlink(), "figure.png is missing"),
    "the verification": (
        lambda entry: edit(
            entry / "entry.json", lambda d: d["verification"]["checks"][0].update(passed=False)
        ),
        "verification failed",
    ),
    "a shallow one": (
        lambda entry: edit(entry / "entry.json", lambda d: d["verification"].update(depth="shallow")),
        "verified without its model",
    ),
    "no JSON": (lambda entry: (entry / "entry.json").write_text("{"), "entry.json is not readable"),
    "another name": (
        lambda entry: entry.rename(entry.with_name("winner")),
        "the folder should be named tiny-",
    ),
    "a copy": (lambda entry: shutil.copytree(entry, entry.with_name("z")), "the same as tiny-"),
}


def test_the_command_checks_a_board(board: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(["check-board", str(board)])
    assert not end.value.code
    capsys.readouterr()
    shutil.copytree(board, tmp_path / "board")
    (entry_of(tmp_path / "board") / "figure.png").unlink()
    with pytest.raises(SystemExit) as end:
        main(["check-board", str(tmp_path / "board"), "--json"])
    assert end.value.code == 1
    (problems,) = json.loads(capsys.readouterr().out)["entries"].values()
    assert "figure.png is missing" in problems


@pytest.mark.parametrize("name", CHANGES)
def test_what_was_changed_on_the_board_is_found(name: str, board: Path, tmp_path: Path) -> None:
    shutil.copytree(board, tmp_path / "board")
    change, words = CHANGES[name]
    change(entry_of(tmp_path / "board"))
    problems = [problem for found in check_board(tmp_path / "board").values() for problem in found]
    assert any(words in problem for problem in problems), problems
    if name in ("another name", "a copy"):
        return
    (shown,) = build_leaderboard([tmp_path / "board"], tmp_path / "out").boards
    assert not [entry for entry in shown.entries if entry.status == "verified"]
    assert shown.unverified


@contextmanager
def serving(folder: Path, explain: Any = lambda _sweep: None) -> Iterator[BoardServer]:
    with BoardServer(folder, host="127.0.0.1", port=0, say=lambda line: None, explain=explain) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server
        finally:
            server.stop()
            thread.join()


def fetch(server: BoardServer, address: str, **headers: str) -> tuple[int, str]:
    request = urllib.request.Request(server.url + address, headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.status, answer.read().decode(errors="replace")
    except urllib.error.HTTPError as problem:
        with problem:
            return problem.code, ""


def test_a_server_builds_anew_when_records_come(vary: Any, tmp_path: Path) -> None:
    folder = tmp_path / "runs"
    folder.mkdir()
    with serving(folder) as server:
        assert server.url.startswith("http://127.0.0.1:")
        assert "Nothing to rank yet" in fetch(server, "")[1]
        version = fetch(server, "version")[1]
        vary(folder, "alpha", np.ones(50, bool))
        limit = time.monotonic() + 30
        while fetch(server, "version")[1] == version:
            assert time.monotonic() < limit
            time.sleep(0.1)
        page = fetch(server, "")[1]
        assert "alpha" in page
        assert "connect-src 'self'" in page
        assert fetch(server, "alpha/record.json")[0] == 200
    assert sorted(path.name for path in folder.iterdir()) == ["alpha"]


def test_a_server_shows_a_sweep_that_runs(tmp_path: Path) -> None:
    """Its trials beside the boards, by validation, and its report each time that a trial has ended."""
    sweep = SweepFolder(tmp_path / "runs" / "<b>sweep")
    explained: list[Path] = []

    def end(trial: str, robust: float) -> None:
        metrics = {"best/val/target/robust_acc": robust, "best/val/target/clean_acc": 0.99}
        row = {"trial": trial, "recipe_hash": "0" * 16, "status": "finished", "overrides": {}, "cost": {}}
        append_line(sweep.ledger, {**row, "metrics": metrics})

    def explain(folder: Path) -> None:
        explained.append(folder)
        write_atomic(folder / "report/sweep.html", f"report {len(explained)}")

    end("000", 0.421)
    with serving(tmp_path / "runs", explain) as server:
        page = fetch(server, "")[1]
        assert "&lt;b&gt;sweep" in page
        assert "<b>sweep" not in page
        assert "1 trials have ended" in page
        assert "42.1" in page
        link = re.search(r'href="([^"]+sweep\.html)"', page)
        assert link is not None
        assert fetch(server, link[1]) == (200, "report 1")
        version = fetch(server, "version")[1]
        end("001", 0.637)
        limit = time.monotonic() + 30
        while fetch(server, "version")[1] == version:
            assert time.monotonic() < limit
            time.sleep(0.1)
        page = fetch(server, "")[1]
        assert page.index("63.7") < page.index("42.1")
        assert fetch(server, link[1]) == (200, "report 2")


def test_a_server_gives_out_nothing_else(vary: Any, tmp_path: Path) -> None:
    folder = tmp_path / "runs"
    vary(folder, "alpha", np.ones(50, bool))
    (folder / "alpha/secret.txt").write_text("secret")
    (tmp_path / "record.json").write_text("secret")
    (folder / "alpha/figure.png").symlink_to(tmp_path / "record.json")
    with serving(folder) as server:
        for address in (
            "alpha/secret.txt", "alpha", "../record.json", "%2e%2e/record.json",
            "alpha/%2e%2e/%2e%2e/record.json", "alpha/figure.png", ".git/record.json",
            "alpha/record.json%00.png", "nowhere/record.json",
        ):  # fmt: skip
            assert fetch(server, address)[0] == 404, address


def test_a_local_server_answers_to_no_other_name(tmp_path: Path) -> None:
    """A page elsewhere may have its own name lead to 127.0.0.1; the browser still says that name."""
    with serving(tmp_path) as server:
        hosts = ("evil.example", "localhost", "localhost:8000", "127.0.0.1")
        assert [fetch(server, "", Host=host)[0] for host in hosts] == [403, 200, 200, 200]


def test_a_server_needs_a_folder_and_a_free_port(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such folder"):
        BoardServer(tmp_path / "none", host="127.0.0.1", port=0, say=print)
    with serving(tmp_path) as server:
        port = int(server.url.rstrip("/").rpartition(":")[2])
        with pytest.raises(UsageError, match=f"--host 127.0.0.1 --port {port}"):
            BoardServer(tmp_path, host="127.0.0.1", port=port, say=print)


def test_a_server_answers_whatever_it_is_asked(vary: Any, tmp_path: Path) -> None:
    said: list[str] = []
    vary(tmp_path / "runs", "alpha", np.ones(50, bool))
    with serving(tmp_path / "runs") as server:
        server._server.say = said.append
        port = int(server.url.rstrip("/").rpartition(":")[2])
        for method, address, status in (
            ("HEAD", "/", 200), ("HEAD", "/alpha/record.json", 200), ("HEAD", "/nowhere", 404),
            ("GET", "/" + "a" * 300, 404), ("GET", "/" + "a/" * 5000 + "record.json", 404),
            ("GET", "http://[::1", 404), ("GET", "/version?x", 200),
        ):  # fmt: skip
            with socket.create_connection(("127.0.0.1", port), timeout=10) as client:
                client.sendall(f"{method} {address} HTTP/1.0\r\nHost: localhost\r\n\r\n".encode())
                answer = b"".join(iter(lambda: client.recv(65536), b""))
            head, _, body = answer.partition(b"\r\n\r\n")
            assert head.split()[1] == str(status).encode(), address[:40]
            assert method == "GET" or not body
    assert said == []
