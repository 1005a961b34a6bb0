"""YAML, dotted overrides and hashes: settings as plain data, before they are validated."""

import copy
import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from temper.credentials import find_secrets
from temper.errors import RecipeError, UsageError
from temper.safe_load import MAX_YAML_CHARACTERS, parse_yaml, read_regular

MAX_SHOWN = 200
"""Characters of a value that an error repeats."""


def read_yaml(path: Path, error: type[UsageError] = RecipeError) -> dict[str, Any]:
    """Read a YAML file that holds a mapping.

    Raises:
        UsageError: (of the given kind) no such file, not YAML, or not a mapping.
    """
    try:
        document = parse_yaml(read_regular(path, 4 * MAX_YAML_CHARACTERS).decode())
    except FileNotFoundError:
        raise error(f"{path}: no such file") from None
    except (OSError, UnicodeDecodeError) as problem:
        raise error(f"{path}: cannot be read ({problem})") from None
    except ValueError as problem:
        raise error(f"{path}: not YAML of this kind ({problem})") from None
    except yaml.YAMLError as problem:
        place = getattr(problem, "problem_mark", None)
        line = f", line {place.line + 1}" if place else ""
        reason = str(getattr(problem, "problem", problem)).splitlines()[0]
        raise error(f"{path}{line}: not valid YAML ({reason})") from None
    if not isinstance(document, dict):
        raise error(f"{path}: expected a mapping of fields, got {type(document).__name__}")
    return document


def parse_assignments(assignments: Iterable[str]) -> dict[str, Any]:
    """Turn ``["objective.alpha=0.3"]`` into ``{"objective.alpha": 0.3}``; values are YAML.

    Raises:
        RecipeError: an assignment without ``=``, or a value that is not YAML.
    """
    overrides: dict[str, Any] = {}
    for assignment in assignments:
        path, sign, value = assignment.partition("=")
        if not sign or not path.strip():
            raise RecipeError(f"--set {assignment}: expected dotted.path=value, such as objective.alpha=0.3")
        try:
            overrides[path.strip()] = parse_yaml(value)
        except (yaml.YAMLError, ValueError):
            shown = " ".join(assignment[:MAX_SHOWN].split())
            raise RecipeError(f"--set {shown}: the value is not valid YAML") from None
    return overrides


def apply_overrides(document: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """A copy of ``document`` with each dotted path set to its value.

    A new ``kind`` replaces the whole node, because the fields of one kind are not those of another;
    kinds are therefore set first, then everything else, whatever the order of ``overrides``.

    Raises:
        RecipeError: a path leads through a value that has no fields.
    """
    result = copy.deepcopy(dict(document))
    for path in sorted(overrides, key=lambda path: (not path.endswith("kind"), path.count("."), path)):
        *parents, leaf = path.split(".")
        node: dict[str, Any] = result
        for index, name in enumerate(parents):
            if node.get(name) is None:
                node[name] = {}
            if not isinstance(node[name], dict):
                raise RecipeError(f"{path}: {'.'.join(parents[: index + 1])} is a value and has no fields")
            node = node[name]
        if leaf == "kind" and node.get("kind") != overrides[path]:
            node.clear()
        node[leaf] = copy.deepcopy(overrides[path])
    return result


def refuse_secrets(document: Mapping[str, Any], where: str, error: type[UsageError] = RecipeError) -> None:
    """See that no key, token or password is in a document that is copied into records and pages.

    Raises:
        UsageError: (of the given kind) one line for each place that holds one; the secret is masked.
    """
    problems = [
        f"{where}: '{path}' holds a secret ({shown[:MAX_SHOWN]}). Recipes are copied into records and pages: "
        "give keys in the environment (such as AWS_SECRET_ACCESS_KEY), those of a web server in ~/.netrc"
        for path, shown in find_secrets(document)
    ]
    if problems:
        raise error("\n".join(problems))


def content_hash(document: object) -> str:
    """The first 16 hex digits of the SHA-256 of a JSON document in canonical form."""
    canonical = json.dumps(document, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(canonical.encode()).hexdigest()[:16]


def dump_yaml(document: Mapping[str, Any]) -> str:
    """YAML in the order of the fields, as a person would write it."""
    return yaml.safe_dump(dict(document), sort_keys=False, allow_unicode=True, width=100)
