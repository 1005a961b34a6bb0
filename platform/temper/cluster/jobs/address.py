"""The address of a head, whether it answers, and its errors in one line each."""

import http.client
import ipaddress
import logging
import os
import re
import socket
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from urllib.parse import urlsplit

from temper.credentials import mask
from temper.errors import JobError, UsageError

DEFAULT_ADDRESS = "http://127.0.0.1:8265"
TALKATIVE = (
    "ray",
    "ray._private.runtime_env.packaging",
    "ray.dashboard.modules.dashboard_sdk",
    "ray.dashboard.modules.job.sdk",
)
PATIENCE_S = 10
"""For an answer to a question of one line."""
LABEL = r"[a-z0-9_-]{1,63}"
URL = re.compile(
    rf"https?://({LABEL}(\.{LABEL})*\.?|\[[0-9a-f:.]+(%[a-z0-9]+)?\])(:[0-9]{{1,5}})?(/[a-z0-9._~/-]*)?",
    re.IGNORECASE | re.ASCII,
)
"""What everybody reads alike: user names, backslashes and spaces are where two readers see two hosts."""


def takes_anyone(address: str) -> bool:
    """Whether the head answers about jobs without any token: whoever reaches it may run code there.

    Raises:
        JobError: it did not answer: a slow head may be one that takes anyone.
    """
    try:
        with urllib.request.urlopen(f"{address}/api/jobs/", timeout=PATIENCE_S) as answer:  # noqa: S310  # checked
            return bool(answer.status < HTTPStatus.BAD_REQUEST)
    except urllib.error.HTTPError as problem:
        if problem.code in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
            return False
        said = f"HTTP {problem.code}"
    except (OSError, http.client.HTTPException) as problem:
        said = str(problem)
    raise JobError(
        f"{address}: cannot tell whether it requires a token ({said}); is it busy? Try again later"
        f"{in_between(address)}"
    )


def in_between(url: str) -> str:
    """A note on the proxy in between, named by its variable; empty if there is none."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    if urllib.request.proxy_bypass(host):
        return ""
    for name in (f"{parts.scheme}_proxy", "all_proxy"):
        for variable in (name, name.upper()):
            if os.environ.get(variable):
                return f". Requests go through the proxy in {variable}; NO_PROXY={host} bypasses it"
    return ""


def is_near(address: str) -> bool:
    """Whether the address is this machine's own: a local head, or a tunnel that SSH keeps.

    Behind a proxy it is the proxy's.
    """
    if not _is_url(address) or in_between(address):
        return False
    host = urlsplit(address).hostname or ""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        # A name that begins like an address is somebody else's: 127.example.org.
        return False


def quiet_job_client() -> None:
    """Silence Ray's lines about every file and request."""
    import ray.job_submission  # noqa: F401  # sets these levels as it is imported

    for name in TALKATIVE:
        logging.getLogger(name).setLevel(logging.ERROR)


def _is_url(text: str) -> bool:
    try:
        return URL.fullmatch(text) is not None and urlsplit(text).port != 0
    except ValueError:  # a port or an IPv6 address that is none
        return False


def choose(address: str | None) -> str:
    """The dashboard's URL: ``address``, or what the environment says, or this machine's.

    Raises:
        UsageError: it is none.
    """
    inherited = os.environ.get("RAY_ADDRESS", "")
    url = (
        address
        or os.environ.get("RAY_API_SERVER_ADDRESS")
        or (inherited if inherited.startswith("http") else "")
        or DEFAULT_ADDRESS
    ).rstrip("/")
    if not _is_url(url):
        raise UsageError(
            f"--address: expected the dashboard's URL, such as {DEFAULT_ADDRESS}, without a user, a query or "
            f"spaces, got {mask(url)!a} (not Ray's own port 6379)"
        )
    return urlsplit(url).geturl()  # its scheme in small letters, as Ray wants it


def check_reachable(url: str) -> None:
    parts = urlsplit(url)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    try:
        socket.create_connection((parts.hostname or "", port), timeout=PATIENCE_S).close()
    except OSError as problem:
        raise JobError(
            f"{url}: cannot connect ({problem.strerror or problem}); is the head running, and its port "
            "forwarded (`ray dashboard cluster.yaml`)?"
        ) from None


@contextmanager
def environment_variable(name: str, value: str) -> Iterator[None]:
    before = os.environ.get(name)
    os.environ[name] = value
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


@contextmanager
def plain_errors(url: str) -> Iterator[None]:
    """Ray's errors about its job server, in one line each."""
    import requests
    from ray.exceptions import AuthenticationError

    try:
        yield
    except AuthenticationError as problem:
        if str(problem).startswith("Authentication failed"):
            raise JobError(
                f"{url}: rejected this token: RAY_AUTH_TOKEN, or the token file, belongs to another cluster"
            ) from None
        raise JobError(
            f"{url}: requires a token, and none was sent: export RAY_AUTH_MODE=token, with the cluster's "
            "token in RAY_AUTH_TOKEN, in the file that RAY_AUTH_TOKEN_PATH names, or in ~/.ray/auth_token"
        ) from None
    except (ConnectionError, requests.exceptions.RequestException) as problem:
        raise JobError(
            f"{url}: does not respond, or is not a Ray head ({_short(problem)}){in_between(url)}"
        ) from None
    except (RuntimeError, ValueError, KeyError) as problem:
        raise JobError(f"{url}: {_short(problem)}") from None


def _short(problem: BaseException) -> str:
    """The last line with content: Ray repeats whole tracebacks of its head."""
    lines = [line.strip() for line in str(problem).splitlines() if line.strip()]
    return (lines[-1] if lines else type(problem).__name__)[:300]
