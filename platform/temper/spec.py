"""Settings as frozen pydantic models: parsing, dotted overrides, and errors that name the place."""

import copy
import difflib
import hashlib
import json
import types
import typing
from collections.abc import Iterable, Mapping
from fractions import Fraction
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, Union

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationError
from pydantic_core import ErrorDetails

from temper.credentials import find_secrets
from temper.errors import RecipeError, UsageError
from temper.reading import parse_yaml

Norm = Literal["linf", "l2", "l1"]
"""Norms whose balls gradients can be followed in: those of training."""

TrainedNorm = Literal["linf", "l2", "l1", "patch"]
"""What can be trained against. ``patch``: anything within one square."""

Geometry = Literal["linf", "l2", "l1", "l0", "semantic", "patch"]
"""What a perturbation is measured by. ``l0``: pixels changed; ``semantic``: rotation, shift, contrast,
blur; ``patch``: the area of the smallest square that holds all that changed, as a share of the image."""


MAX_SHOWN = 200
"""Characters of a value that an error repeats."""


class Spec(BaseModel):
    """Base of all settings and records: frozen, and closed to unknown fields."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    def __str__(self) -> str:
        return repr(self)


def parse_ratio(value: object) -> object:
    """Read '8/255' as a number; leave everything else to pydantic."""
    if isinstance(value, str) and "/" in value:
        try:
            return float(Fraction(value.replace(" ", "")))
        except (ValueError, ZeroDivisionError):
            raise ValueError(f"expected a number or a ratio such as 8/255, got {value!r}") from None
    return value


Ratio = Annotated[float, BeforeValidator(parse_ratio)]
"""A float that may be written as a ratio, such as ``8/255``."""


def format_ratio(value: float) -> str:
    """Write a pixel distance as people do: ``8/255`` where it is one, else a short decimal."""
    numerator = value * 255
    is_short = float(f"{value:.4g}") == value
    if not is_short and abs(numerator - round(numerator)) < 1e-6:
        return f"{round(numerator)}/255"
    return f"{value:.4g}"


class Threat(Spec):
    """What robust accuracy means here: all perturbations of at most ``eps`` in ``norm``.

    ``eps`` is in pixel units of [0,1]: 8/255 for Linf, for example, 0.5 for L2, or 12 for L1. In L0 it is a
    number of pixels, of semantic changes a strength: 1 is the whole range of each. Of a patch it is the share
    of the image's area: any colours within one square anywhere, such as a sticker.
    """

    norm: Geometry = "linf"
    eps: Ratio

    def model_post_init(self, _context: object) -> None:
        check_eps(self.norm, self.eps)

    @property
    def label(self) -> str:
        """A short name such as ``Linf 8/255``."""
        return f"{self.norm.capitalize()} {format_ratio(self.eps)}"


class BallThreat(Threat):
    """A threat model that can be trained against."""

    norm: TrainedNorm = "linf"


def check_eps(norm: Geometry, eps: float) -> None:
    """Refuse an ``eps`` that cannot be meant in pixel units of [0,1].

    Raises:
        ValueError: ``eps`` is negative, or larger than the whole range (Linf), 32 (L2), 3072 (L1), a million
            pixels (L0), 1 (semantic) or the whole area (patch); or it is no whole number of pixels.
    """
    # L1: the whole range of every pixel of an image of 32 x 32.
    largest = {"linf": 1.0, "l2": 32.0, "l1": 3072.0, "l0": 1e6, "semantic": 1.0, "patch": 1.0}[norm]
    if norm == "l0" and eps != int(eps):
        raise ValueError(f"eps of l0 is a number of pixels, got {eps:g}")
    if norm == "patch" and not 0 <= eps <= largest:
        raise ValueError(f"eps of a patch is its share of the image's area, 0..1, got {eps:g}")
    if not 0 <= eps <= largest:
        hint = f"; did you mean {eps:g}/255?" if largest < eps <= 255 else ""
        raise ValueError(
            f"eps is in pixel units of [0,1], so for {norm} it lies in 0..{largest:g}, got {eps:g}{hint}"
        )


# --- reading and overriding -------------------------------------------------------------------


def read_yaml(path: Path, error: type[UsageError] = RecipeError) -> dict[str, Any]:
    """Read a YAML file that holds a mapping.

    Raises:
        UsageError: (of the given kind) no such file, not YAML, or not a mapping.
    """
    try:
        document = parse_yaml(path.read_text(encoding="utf-8"))
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


# --- canonical form ---------------------------------------------------------------------------


def content_hash(document: object) -> str:
    """The first 16 hex digits of the SHA-256 of a JSON document in canonical form."""
    canonical = json.dumps(document, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(canonical.encode()).hexdigest()[:16]


def dump_yaml(document: Mapping[str, Any]) -> str:
    """YAML in the order of the fields, as a person would write it."""
    return yaml.safe_dump(dict(document), sort_keys=False, allow_unicode=True, width=100)


# --- errors -----------------------------------------------------------------------------------

SpecT = TypeVar("SpecT", bound=BaseModel)


def validate(model: type[SpecT], document: Mapping[str, Any], where: str) -> SpecT:
    """Build ``model`` from ``document``.

    Raises:
        RecipeError: one line for each problem: where, dotted path, what is wrong, what is allowed.
    """
    try:
        return model.model_validate(document)
    except ValidationError as problem:
        lines = [f"{where}: {explain(model, error)}" for error in problem.errors()]
        raise RecipeError("\n".join(dict.fromkeys(lines))) from None


def explain(model: type[BaseModel], error: ErrorDetails) -> str:
    """One pydantic error as a sentence for users."""
    owner, path = _locate(model, error["loc"])
    dotted = ".".join(path)
    match error["type"]:
        case "extra_forbidden":
            fields = sorted(owner.model_fields) if owner else []
            parent = f"'{'.'.join(path[:-1])}'" if path[:-1] else "the top level"
            close = difflib.get_close_matches(path[-1], fields, 1)
            hint = f" (did you mean '{close[0]}'?)" if close else ""
            return f"no field '{dotted}'{hint}. Fields of {parent}: {', '.join(fields)}"
        case "missing":
            return f"'{dotted}' is required"
        case "union_tag_invalid":
            context = error["ctx"]
            return f"'{dotted}': no kind {context['tag']!r}. Kinds: {context['expected_tags']}".replace(
                "'\"", "'"
            )
        case "union_tag_not_found":
            return f"'{dotted}': expected a mapping with a 'kind', got {_short(error['input'])}"
        case _:
            message = error["msg"].removeprefix("Value error, ")
            got = "" if error["type"] == "value_error" else f", got {_short(error['input'])}"
            return f"'{dotted}': {message}{got}" if dotted else f"{message}{got}"


def _short(value: object) -> str:
    """``value`` in one line of a message."""
    text = repr(value)
    return text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]}... ({len(text):,} characters)"


def _locate(model: type[BaseModel], loc: tuple[int | str, ...]) -> tuple[type[BaseModel] | None, list[str]]:
    """The model that owns the last name of ``loc``, and ``loc`` without the tags of unions."""
    owner: type[BaseModel] | None = model
    choices: dict[str, type[BaseModel]] = {}
    path: list[str] = []
    for name in map(str, loc):
        if name in choices:
            owner, choices = choices[name], {}
            continue
        if len(choices) == 1:
            owner = next(iter(choices.values()))
        path.append(name)
        field = owner.model_fields.get(name) if owner else None
        choices = _models_in(field.annotation) if field else {}
    return owner, path


def _models_in(annotation: object) -> dict[str, type[BaseModel]]:
    """The spec classes that an annotation admits, by their ``kind`` (or by their name)."""
    origin = typing.get_origin(annotation)
    if origin in (Union, types.UnionType, Annotated, tuple, list, dict):
        found: dict[str, type[BaseModel]] = {}
        for part in typing.get_args(annotation):
            found |= _models_in(part)
        return found
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        kind = annotation.model_fields.get("kind")
        return {str(kind.default) if kind else annotation.__name__: annotation}
    return {}
