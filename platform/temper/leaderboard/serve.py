"""A small server for one board: it builds the board anew whenever records change."""

import contextlib
import hashlib
import sys
import threading
from collections.abc import Callable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import Any, Self
from urllib.parse import unquote

from temper.errors import TemperError, UsageError
from temper.leaderboard.build import build_leaderboard
from temper.leaderboard.page.index import render_waiting
from temper.leaderboard.sweeps import SweepNews, find_sweeps, news_of
from temper.leftovers import held_folder, remove_leftovers
from temper.records import EXTERNAL, write_atomic

WATCHED = ("record.json", "entry.json", "verdict.json", "crossval.json", "ledger.jsonl", EXTERNAL)
SHOWN = (
    "record.json", "entry.json", "verdict.json", "recipe.yaml", "figure.png", "mistakes.png",
    "outcomes.parquet", "sweep.html", "sweep.md", "trials.csv",
)  # fmt: skip
"""Of the folder's own files, what pages link to; nothing else of it is given out."""
TYPES = {
    ".html": "text/html; charset=utf-8",
    ".json": "application/json",
    ".md": "text/markdown; charset=utf-8",
    ".csv": "text/csv; charset=utf-8",
    ".yaml": "text/plain; charset=utf-8",
    ".png": "image/png",
}
CHECK_EVERY_S = 1.0
CLIENT_PATIENCE_S = 60.0
"""Until a client that asks nothing is left."""
PREFIX = ".temper-serve-"


class _Server(ThreadingHTTPServer):
    """Clients that leave are none of our errors; the others take a line."""

    say: Callable[[str], None]

    def handle_error(self, request: Any, client_address: Any) -> None:
        problem = sys.exc_info()[1]
        if not isinstance(problem, ConnectionError | TimeoutError):
            self.say(f"a request failed ({type(problem).__name__}: {problem})")


class BoardServer:
    """Serves the board of ``folder``, and how far its sweeps are; ``port`` 0 takes any that is free.

    ``explain`` writes the report of a sweep's folder, each time that its ledger has changed.

    Raises:
        UsageError: no such folder, or an address that cannot be had.
    """

    def __init__(
        self,
        folder: Path,
        *,
        host: str,
        port: int,
        say: Callable[[str], None],
        explain: Callable[[Path], object] = lambda _sweep: None,
    ) -> None:
        if not folder.is_dir():
            raise UsageError(f"{folder}: no such folder")
        self._folder, self._say, self._explain = folder.resolve(), say, explain
        self._explained: dict[Path, int] = {}
        # Inside the folder, so that links to records are relative; hidden, so that none is found there.
        remove_leftovers(self._folder, f"{PREFIX}*")
        self._place = TemporaryDirectory(dir=folder, prefix=PREFIX)
        self._out = Path(self._place.name).resolve()
        self._held = contextlib.ExitStack()
        self._held.enter_context(held_folder(self._out))
        self._version, self._ended = "", threading.Event()
        try:
            self._server = _Server((host, port), _handler(self))
            self._server.say = say
        except OSError as problem:
            self._clean_up()
            raise UsageError(f"--host {host} --port {port}: {problem.strerror or problem}") from None
        self._watcher = threading.Thread(target=self._watch, daemon=True)

    @property
    def url(self) -> str:
        host, port = self._server.server_address[:2]
        name = host.decode() if isinstance(host, bytes | bytearray) else str(host)
        return f"http://{f'[{name}]' if ':' in name else name}:{port}/"

    @property
    def is_local(self) -> bool:
        """Whether only this machine is answered."""
        return str(self._server.server_address[0]) in ("127.0.0.1", "::1")

    def answers_to(self, host: str) -> bool:
        """Whether a request that names ``host`` is meant for us, not lured here through a name of its own."""
        name = host.rpartition(":")[0] if host.rpartition(":")[2].isdigit() else host
        return not self.is_local or name in ("127.0.0.1", "localhost", "[::1]")

    @property
    def version(self) -> str:
        """Changes with the board."""
        return self._version

    def __enter__(self) -> Self:
        self._build(self._stamp())
        self._watcher.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._watcher.join()
        self._server.server_close()
        self._clean_up()

    def _clean_up(self) -> None:
        self._place.cleanup()
        self._held.close()

    def serve_forever(self) -> None:
        """Answer until interrupted, or until ``stop``."""
        self._server.serve_forever(poll_interval=0.2)

    def stop(self) -> None:
        """End ``serve_forever`` from another thread."""
        self._server.shutdown()

    def content_of(self, path: str) -> tuple[bytes, str] | None:
        """What is shown at an address's path, and its type; ``None`` if there is nothing to show."""
        if path == "/version":
            return self.version.encode(), "text/plain"
        if path == "/favicon.ico":  # browsers ask for it
            return b"", "image/png"
        file = self.file_of(path)
        if file is None:
            return None
        try:
            return file.read_bytes(), TYPES.get(file.suffix, "application/octet-stream")
        except OSError:
            return None

    def file_of(self, path: str) -> Path | None:
        """The file that is meant by an address's path; ``None`` for what is not there or not to be seen."""
        try:
            return self._find([part for part in unquote(path).split("/") if part not in ("", ".")])
        except OSError:  # a name that is too long, or a circle of links
            return None

    def _find(self, parts: list[str]) -> Path | None:
        if any(part.startswith(".") or "\0" in part or "\\" in part for part in parts):
            return None
        own = self._out.joinpath(*parts) if parts else self._out / "index.html"
        if own.is_file():
            return own
        file = self._folder.joinpath(*parts).resolve()
        is_inside = file.is_relative_to(self._folder)
        return file if is_inside and parts[-1] in SHOWN and file.is_file() else None

    def _watch(self) -> None:
        while not self._ended.wait(CHECK_EVERY_S):
            stamp = self._stamp()
            if stamp != self._version:
                self._build(stamp)

    def _stamp(self) -> str:
        """What tells one state of the folder from another."""
        lines = []
        for name in WATCHED:
            for path in sorted(self._folder.rglob(name)):
                with contextlib.suppress(OSError):  # it went while we looked
                    found = path.stat()
                    lines.append(f"{path} {found.st_size} {found.st_mtime_ns}")
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]

    def _build(self, stamp: str) -> None:
        sweeps = self._look_at_sweeps()
        try:
            board = build_leaderboard([self._folder], self._out, is_live=True, sweeps=sweeps)
            self._say(f"built: {sum(len(part.entries) for part in board.boards)} models ranked")
        except TemperError as problem:
            write_atomic(self._out / "index.html", render_waiting(str(problem), sweeps))
            self._say(f"waiting: {problem}")
        self._version = stamp

    def _look_at_sweeps(self) -> list[SweepNews]:
        found = []
        for sweep in find_sweeps(self._folder):
            size = (sweep / "ledger.jsonl").stat().st_size
            if self._explained.get(sweep) != size:
                self._explained[sweep] = size
                try:
                    self._explain(sweep)
                except (TemperError, OSError) as problem:
                    self._say(f"no report: {problem}")
            news = news_of(sweep, self._folder)
            if news is not None:
                found.append(news)
        return found


def _handler(server: BoardServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        timeout = CLIENT_PATIENCE_S

        def do_HEAD(self) -> None:
            self.do_GET()  # the body is left out where it is written

        def do_GET(self) -> None:
            if not server.answers_to(self.headers.get("Host", "")):
                self.send_error(HTTPStatus.FORBIDDEN)
                return
            found = server.content_of(self.path.partition("?")[0])
            if found is None:
                self.send_error(HTTPStatus.NOT_FOUND)
            else:
                self._answer(*found)

        def _answer(self, content: bytes, kind: str) -> None:
            self.send_response(HTTPStatus.OK)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(content)))
            self.send_header("Cache-Control", "no-store")
            self.send_header("X-Content-Type-Options", "nosniff")
            self.end_headers()
            if self.command != "HEAD":
                with contextlib.suppress(ConnectionError):
                    self.wfile.write(content)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # as http.server names it
            """Nobody needs a line for each request."""

    return Handler
