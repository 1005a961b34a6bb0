"""Validation whose errors name the place, what is wrong, and what is allowed."""

import difflib
import re
import types
import typing
from collections.abc import Mapping
from typing import Annotated, Any, TypeVar, Union

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from temper.errors import RecipeError
from temper.spec.documents import MAX_SHOWN

SpecT = TypeVar("SpecT", bound=BaseModel)

PLAIN_TAG = re.compile(r"bool|int|float|str|constrained-\w+|[\w-]+\[.*\]")
"""How pydantic names an alternative that is no model, within a place. No field of ours is called so."""


def validate(model: type[SpecT], document: Mapping[str, Any], where: str) -> SpecT:
    """Build ``model`` from ``document``.

    Raises:
        RecipeError: one line for each problem: where, dotted path, what is wrong, what is allowed.
    """
    try:
        return model.model_validate(document)
    except ValidationError as problem:
        places: dict[str, list[ErrorDetails]] = {}
        for error in problem.errors():
            places.setdefault(".".join(_locate(model, error["loc"])[1]), []).append(error)
        lines = [f"{where}: {_together(model, place, errors)}" for place, errors in places.items()]
        raise RecipeError("\n".join(dict.fromkeys(lines))) from None


def first_problem(problem: Exception) -> str:
    """What is wrong with a document that we wrote once, in one line: of pydantic's problems the first."""
    if not isinstance(problem, ValidationError):
        return str(problem)
    first = problem.errors()[0]
    if first["type"] == "model_type":
        message = f"expected an object, got {type(first['input']).__name__}"
    else:
        message = first["msg"].removeprefix("Value error, ")
    return f"'{'.'.join(map(str, first['loc']))}': {message}" if first["loc"] else message


def _together(model: type[BaseModel], place: str, errors: list[ErrorDetails]) -> str:
    """A sentence for all that is wrong at one place: what each alternative there would have been."""
    *others, last = dict.fromkeys(explain(model, error) for error in errors)
    got = f", got {_short(errors[-1]['input'])}"
    heads = [sentence.removesuffix(got) for sentence in others]
    return " or: ".join([*heads, last.removeprefix(f"'{place}': ") if heads else last])


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
        if path and PLAIN_TAG.fullmatch(name):
            continue
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
