"""Secrets and hostile text, kept out of what people read and of what is written down.

Keys come from the environment. Whatever of them would come into a message is masked, and a recipe that holds
one is refused: recipes are copied into records, pages and trackers.
"""

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

HIDDEN = "***"
MIN_LENGTH = 12
"""Of a variable's value, in characters, to be taken for a secret: shorter ones may be words."""

SECRET_NAME = re.compile(
    r"(^|_)(KEY|APIKEY|TOKEN|SECRET|PASSWORD|PASSWD|CREDENTIALS?)(_ID)?(_|$)", re.IGNORECASE
)
PLACE_NAME = re.compile(r"_(PATH|FILE|DIR)$", re.IGNORECASE)

BIDI = frozenset([*range(0x202A, 0x202F), *range(0x2066, 0x206A), 0x061C, 0x200E, 0x200F])
"""Characters that turn the direction of the text around them."""

# One slash or two: a path that was a URL has lost one.
USER_OF_URL = re.compile(r"(\b[A-Za-z][A-Za-z0-9+.-]+:/{1,2})[^\s/@:'\"]*(?::[^\s@'\"]*)?@")
KEY_IN_QUERY = re.compile(
    r"([?&;](?:[\w.-]*(?:token|signature|credential|secret|password|api_?key|accesskeyid)[\w.-]*|key|sig)=)[^\s&'\"]+",
    re.IGNORECASE,
)
KNOWN_KEY = re.compile(r"\b(?:(?:AKIA|ASIA)[A-Z0-9]{16}|hf_[A-Za-z0-9]{20,}|gh[pousr]_[A-Za-z0-9]{30,})\b")


def secrets_of(environment: Mapping[str, str] | None = None) -> list[str]:
    """Values of the variables whose names say that they are secret, the longest first."""
    variables = os.environ if environment is None else environment
    found = {
        value
        for name, value in variables.items()
        if len(value) >= MIN_LENGTH and SECRET_NAME.search(name) and not PLACE_NAME.search(name)
    }
    return sorted(found, key=len, reverse=True)


def mask(text: str, secrets: Sequence[str] | None = None) -> str:
    """``text`` with ``***`` for ``secrets``, by default those of the environment, users of URLs, and what
    looks like a key.
    """
    for secret in secrets_of() if secrets is None else secrets:
        text = text.replace(secret, HIDDEN)
    text = USER_OF_URL.sub(rf"\1{HIDDEN}@", text)
    text = KEY_IN_QUERY.sub(rf"\1{HIDDEN}", text)
    return KNOWN_KEY.sub(HIDDEN, text)


def find_secrets(document: Any) -> Iterator[tuple[str, str]]:
    """The dotted path and the masked text of every key and value that holds a secret."""
    # Looked up once: the environment is read slowly, and a document has hundreds of texts.
    return _find(document, "", secrets_of())


def _find(document: Any, path: str, secrets: Sequence[str]) -> Iterator[tuple[str, str]]:
    if isinstance(document, Mapping):
        for name, value in document.items():
            yield from _find(str(name), path, secrets)
            yield from _find(value, f"{path}.{mask(str(name), secrets)}".removeprefix("."), secrets)
    elif isinstance(document, list | tuple):
        for index, value in enumerate(document):
            yield from _find(value, f"{path}.{index}".removeprefix("."), secrets)
    elif isinstance(document, str) and (masked := mask(document, secrets)) != document:
        yield path, masked


def printable(text: str, *, kept: str = "\n\t") -> str:
    """``text`` with escapes for what can't be seen, moves a cursor, or turns the direction of text.

    The letters of every script stay, and so do line ends and tabs, but for ``kept=""``.
    """
    return "".join(char if char.isprintable() or char in kept else ascii(char)[1:-1] for char in text)


def on_a_line(name: object) -> str:
    """A name of a file as it may stand within a line or a cell: line ends and tabs are escapes too."""
    return printable(str(name), kept="")


def shown(text: str, secrets: Sequence[str] | None = None) -> str:
    """A message as it may go to a terminal, a log or a record; ``secrets`` as for ``mask``."""
    return printable(mask(text, secrets))
