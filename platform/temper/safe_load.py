"""YAML and JSON from outside as plain data: nothing is executed, and no file can explode in memory.

Both refuse what is nested deep, and a NaN or an infinity where it is written as a number of JSON: the rest of
temper writes neither, and can't tell what it would mean.
"""

import errno
import json
import math
import os
import re
import stat
from pathlib import Path
from typing import Any

import yaml

MAX_DEPTH = 64
MAX_YAML_CHARACTERS = 256 * 1024
MAX_YAML_NODES = 100_000
"""Each alias counts as all that it stands for: ten anchors of ten aliases each make 10^10."""
MAX_JSON_BYTES = 64 * 2**20
MAX_DIGITS = 1000
"""Of a whole number: fewer than Python itself refuses to write out."""
SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")
"""How half a character may be written in JSON; in UTF-8 it cannot be."""


def parse_yaml(text: str) -> Any:
    """The document as plain data; ``None`` where it is empty.

    Raises:
        yaml.YAMLError: not YAML, or a tag that would make anything but plain data.
        ValueError: too long, too deep or too large; a key given twice; a value that is none.
    """
    if len(text) > MAX_YAML_CHARACTERS:
        raise ValueError(f"{len(text):,} characters; allowed: {MAX_YAML_CHARACTERS:,}")
    _check_brackets(text)
    loader = yaml.SafeLoader(text)
    try:
        node = loader.get_single_node()
        if node is None:
            return None
        _Tree().measure(node, 1)
        return loader.construct_document(node)
    except RecursionError:
        raise ValueError(_too_deep()) from None
    finally:
        loader.dispose()


def _check_brackets(text: str) -> None:
    """Before PyYAML looks, whose scanner takes a minute for five thousand open brackets.

    Brackets in quotes and comments count too: as many as these, none of them closed, nobody writes.
    """
    depth = 0
    for char in text:
        if char in "[{":
            depth += 1
            if depth > MAX_DEPTH:
                raise ValueError(_too_deep())
        elif char in "]}":
            depth = max(0, depth - 1)


def _too_deep() -> str:
    return f"nested more than {MAX_DEPTH} deep"


class _Tree:
    """Counts the nodes that a document has once its aliases are written out."""

    def __init__(self) -> None:
        self._sizes: dict[int, int] = {}

    def measure(self, node: yaml.Node, depth: int) -> int:
        if depth > MAX_DEPTH:  # an alias that holds itself, too
            raise ValueError(_too_deep())
        known = self._sizes.get(id(node))
        if known is not None:
            return known
        if node.tag == "tag:yaml.org,2002:int" and len(node.value) > MAX_DIGITS:
            raise ValueError(_too_long(node.value))
        size = 1 + sum(self.measure(child, depth + 1) for child in _children(node))
        if size > MAX_YAML_NODES:
            raise ValueError(f"its aliases expand to more than {MAX_YAML_NODES:,} values; write them out")
        self._sizes[id(node)] = size
        return size


def _children(node: yaml.Node) -> list[yaml.Node]:
    if isinstance(node, yaml.SequenceNode):
        return list(node.value)
    if not isinstance(node, yaml.MappingNode):
        return []
    keys: set[str] = set()
    for key, _ in node.value:
        if isinstance(key, yaml.ScalarNode) and key.value != "<<":
            if key.value in keys:
                raise ValueError(f"line {key.start_mark.line + 1}: '{key.value}' is given twice; keep one")
            keys.add(key.value)
    return [part for pair in node.value for part in pair]


def read_json(path: Path, max_bytes: int = MAX_JSON_BYTES) -> Any:
    """A JSON file as plain data.

    Raises:
        OSError: it cannot be read.
        ValueError: as ``parse_json``, or larger than ``max_bytes``.
    """
    return parse_json(read_regular(path, max_bytes))


def read_regular(path: Path, max_bytes: int) -> bytes:
    """What a file holds. It is opened once, and never waited for: what it was when it was looked at is read.

    Raises:
        OSError: it cannot be read.
        ValueError: no regular file (a device, a pipe), or larger than ``max_bytes``.
    """
    number = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        about = os.fstat(number)
        if stat.S_ISDIR(about.st_mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        if not stat.S_ISREG(about.st_mode):
            raise ValueError("not a regular file, but a device, a pipe or a socket")
        if about.st_size > max_bytes:
            raise ValueError(f"{about.st_size:,} bytes; allowed: {max_bytes:,}")
        with os.fdopen(number, "rb", closefd=False) as file:
            content = file.read(max_bytes + 1)
    finally:
        os.close(number)
    if len(content) > max_bytes:
        raise ValueError(f"more than the {max_bytes:,} bytes that are allowed")
    return content


def parse_json(text: str | bytes) -> Any:
    """A JSON document as plain data.

    Raises:
        ValueError: not JSON in UTF-8, a number that is none or is not finite, or nested too deep.
    """
    text = text.decode() if isinstance(text, bytes) else text
    try:
        document = json.loads(
            text,
            parse_constant=_refuse_constant,
            parse_float=_finite,
            parse_int=_short,
        )
    except RecursionError:
        raise ValueError(_too_deep()) from None
    _check_depth(document)
    if SURROGATE.search(text):
        _check_strings(document)
    return document


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is not a number of JSON")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"the number {text[:40]} is out of range")
    return value


def _short(text: str) -> int:
    if len(text) > MAX_DIGITS:
        raise ValueError(_too_long(text))
    return int(text)


def _too_long(digits: str) -> str:
    return f"a number of {len(digits):,} digits; allowed: {MAX_DIGITS}"


def _check_strings(document: Any) -> None:
    """That all of them are text: half a surrogate pair is none, and cannot be written anywhere."""
    left = [document]
    while left:
        part = left.pop()
        if isinstance(part, dict):
            left += [*part.keys(), *part.values()]
        elif isinstance(part, list):
            left += part
        elif isinstance(part, str):
            try:
                part.encode()
            except UnicodeEncodeError:
                raise ValueError(f"{part[:40]!a} holds half a character (a lone surrogate)") from None


def _check_depth(document: Any) -> None:
    level = [document]
    for _ in range(MAX_DEPTH):
        below: list[Any] = []
        for part in level:
            if isinstance(part, dict):
                below += [value for value in part.values() if isinstance(value, dict | list)]
            elif isinstance(part, list):
                below += [value for value in part if isinstance(value, dict | list)]
        if not below:
            return
        level = below
    raise ValueError(_too_deep())
