"""Trying again: what is worth it, how long to wait, and what to say when it is given up."""

import logging
import os
import random
import re
import socket
import time
from collections.abc import Callable, Iterator
from typing import TypeVar

from pydantic import Field

from temper.errors import StorageError
from temper.seeds import derive_seed
from temper.spec import Spec

logger = logging.getLogger(__name__)
TELL_AFTER = 5
"""Tries, some seconds, after which someone who waits is told what for."""

Result = TypeVar("Result")

REFUSALS = {
    "ACCESS_DENIED": "no permission; check AWS_ACCESS_KEY_ID and its secret, or the role of this node",
    "NO_SUCH_BUCKET": "no such bucket; create it, or name another",
    "INVALID_ACCESS_KEY_ID": "the storage does not know AWS_ACCESS_KEY_ID",
    "INVALID_CLIENT_TOKEN_ID": "the storage does not know AWS_ACCESS_KEY_ID",
    "UNRECOGNIZED_CLIENT": "the storage does not know AWS_ACCESS_KEY_ID",
    "MISSING_AUTHENTICATION_TOKEN": "no credentials; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
    "SIGNATURE_DOES_NOT_MATCH": "AWS_SECRET_ACCESS_KEY does not match AWS_ACCESS_KEY_ID",
    "EXPIRED_TOKEN": "AWS_SESSION_TOKEN has expired",
}
"""What the storage means, and does not change its mind about."""
STATUS = re.compile(r"HTTP status (\d{3})")
NAME = re.compile(r"AWS Error (\w+)")
WORTH_IT = (408, 425, 429)
"""Refusals in the 400s that pass."""


class Retry(Spec):
    """How long a request is tried again: waits double from ``first_s`` up, less a random part."""

    limit_s: float = Field(default=180.0, ge=0)
    """Of one object, all tries and waits together."""
    first_s: float = Field(default=0.2, gt=0)
    longest_s: float = Field(default=20.0, gt=0)
    request_s: float = Field(default=30.0, gt=0)
    """Seconds without a byte after which a request is given up, and tried again."""

    @classmethod
    def of_environment(cls) -> "Retry":
        """``TEMPER_STORAGE_LIMIT_S``, ``..._REQUEST_S`` where they are set.

        Raises:
            StorageError: they are no positive numbers.
        """
        found = {
            name: os.environ[f"TEMPER_STORAGE_{name.upper()}"]
            for name in ("limit_s", "request_s")
            if os.environ.get(f"TEMPER_STORAGE_{name.upper()}")
        }
        try:
            return cls.model_validate(found)
        except ValueError:
            raise StorageError(
                f"{', '.join(f'TEMPER_STORAGE_{name.upper()}={value}' for name, value in found.items())}: "
                "expected seconds, such as 180"
            ) from None

    def waits(self, what: str) -> Iterator[float]:
        """Seconds between the tries of one request; random, but the same again in the same process."""
        # Each process has its own, so that those that failed together do not come back together.
        chance = random.Random(derive_seed(0, "backoff", what, socket.gethostname(), os.getpid()))  # noqa: S311
        longest = self.first_s
        while True:
            yield longest * chance.uniform(0.5, 1.0)
            longest = min(2 * longest, self.longest_s)


def persist(work: Callable[[], Result], where: object, verb: str, retry: Retry | None = None) -> Result:
    """Do ``work`` on the object ``where``, again and again while its storage is slow, failing or away.

    Raises:
        FileNotFoundError: it is not there.
        StorageError: it is refused, or the time is up; ``verb`` says in it what was to be done.
        OSError: of this machine: a full disk, no permission.
    """
    retry = retry or Retry.of_environment()
    started, waits, tries = time.monotonic(), retry.waits(f"{verb} {where}"), 0
    while True:
        tries += 1
        try:
            return work()
        except FileNotFoundError:
            raise
        except OSError as problem:
            if problem.errno is not None:
                raise
            refusal = refusal_of(str(problem))
            if refusal is not None:
                raise StorageError(f"{where}: cannot be {verb}: {refusal}") from None
            wait = next(waits)
            seconds = time.monotonic() - started
            if seconds + wait > retry.limit_s:
                raise StorageError(
                    f"{where}: cannot be {verb} after {tries} tries in {seconds:.0f} s: "
                    f"{first_sentence(problem)}; check that the storage can be reached (AWS_ENDPOINT_URL, "
                    "AWS_REGION), then run the same command again to resume"
                ) from None
            if tries == TELL_AFTER:
                logger.warning(
                    "%s: %s; retrying for up to %g s", where, first_sentence(problem), retry.limit_s
                )
            time.sleep(wait)


def refusal_of(message: str) -> str | None:
    """Why it is of no use to try again; ``None`` where it is."""
    name, status = NAME.search(message), STATUS.search(message)
    if name and name[1] in REFUSALS:
        return REFUSALS[name[1]]
    code = int(status[1]) if status else 500
    if code == 301:
        return "the bucket is in another region; set AWS_REGION"
    if 400 <= code < 500 and code not in WORTH_IT:
        return first_sentence(message)
    return None


def first_sentence(problem: object) -> str:
    """What follows may be a page of XML."""
    lines = str(problem).splitlines()
    return lines[0][:300] if lines else type(problem).__name__
