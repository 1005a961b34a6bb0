"""The identity of the code that makes an external model."""

import ast
import hashlib
import importlib.util
from collections.abc import Iterator
from pathlib import Path


def digest_of_code(name: str) -> str:
    """SHA-256 over what ``file.py:function`` or ``module:function`` is read from.

    Of a file, also the modules beside it that it imports; of a module, the whole package.
    """
    where = name.rpartition(":")[0]
    top, files = _of_file(Path(where)) if where.endswith(".py") else _of_package(where)
    digest = hashlib.sha256()
    for path in sorted(files):
        content = path.read_bytes()
        digest.update(f"{path.relative_to(top).as_posix()}\0{len(content)}\0".encode())
        digest.update(content)
    return digest.hexdigest()


def _of_package(module: str) -> tuple[Path, set[Path]]:
    found = importlib.util.find_spec(module.partition(".")[0])
    if found is None or found.origin is None:
        return Path(), set()
    origin = Path(found.origin)
    folder = origin.parent
    return folder, set(folder.rglob("*.py")) if found.submodule_search_locations else {origin}


def _of_file(first: Path) -> tuple[Path, set[Path]]:
    first = first.resolve()
    found, waiting = set[Path](), {first}
    while waiting:
        path = waiting.pop()
        found.add(path)
        for name in _imported(path):
            beside = first.parent / name
            waiting |= {one for one in (beside.with_suffix(".py"), *beside.rglob("*.py")) if one.is_file()}
        waiting -= found
    return first.parent, found


def _imported(path: Path) -> Iterator[str]:
    """The first parts of the names of modules that a file imports, at its top or late."""
    try:
        tree = ast.parse(path.read_bytes())
    except (SyntaxError, ValueError):
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            yield (node.module or "").partition(".")[0]
