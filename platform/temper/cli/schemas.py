"""JSON schemas of what people write by hand, for editors and for the documentation."""

import ast
import functools
import inspect
import sys
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import core_schema

from temper.cli.options import SchemaName
from temper.spec import parse_ratio

DIALECT = "https://json-schema.org/draft/2020-12/schema"
LIMITS = {"gt": "exclusiveMinimum", "ge": "minimum", "lt": "exclusiveMaximum", "le": "maximum"}
"""pydantic 2.14 leaves the limits of a number with a validator before it (a ratio) under their own names."""


def build_schema(name: SchemaName) -> dict[str, Any]:
    """The JSON schema of a recipe, a search space, an attack suite, or an evaluation record.

    It says of one file what can be said of each field by itself; that fields agree with each other is seen
    only when temper reads it.
    """
    schema = _model_of(name).model_json_schema(schema_generator=WithNotes)
    return {"$schema": DIALECT, **_with_limits(schema)}


def _with_limits(node: Any) -> Any:
    """``node`` of a schema, with JSON schema's names of limits beside alternatives; strings pass them."""
    if isinstance(node, list):
        return [_with_limits(part) for part in node]
    if not isinstance(node, dict):
        return node
    names = LIMITS if "anyOf" in node else {}
    return {names.get(name, name): _with_limits(part) for name, part in node.items()}


def _model_of(name: SchemaName) -> type[BaseModel]:
    if name == "recipe":
        from temper.recipe import Recipe

        return Recipe
    if name == "space":
        from temper.search import SearchSpace

        return SearchSpace
    if name == "suite":
        from temper.evaluation.suite import Suite

        return Suite
    from temper.records import EvaluationRecord

    return EvaluationRecord


class WithNotes(GenerateJsonSchema):
    """As pydantic has it, with the notes under fields in the code, ratios, and kinds that must be named."""

    def model_schema(self, schema: core_schema.ModelSchema) -> JsonSchemaValue:
        made = super().model_schema(schema)
        model: type[BaseModel] = schema["cls"]
        notes = notes_of(model)
        for name, field in made.get("properties", {}).items():
            field.pop("title", None)
            if name in notes:
                field["description"] = notes[name]
        if "description" in made:
            made["description"] = as_markdown(made["description"])
        # A kind has a default in the code; in a file it tells which of several it is.
        if "const" in made.get("properties", {}).get("kind", {}):
            made["required"] = ["kind", *(name for name in made.get("required", []) if name != "kind")]
        return made

    def function_before_schema(self, schema: core_schema.BeforeValidatorFunctionSchema) -> JsonSchemaValue:
        made = super().function_before_schema(schema)
        if schema["function"]["function"] is not parse_ratio:
            return made
        return {"anyOf": [made, {"type": "string", "pattern": r"^\s*-?\d+(\.\d+)?\s*/\s*\d+(\.\d+)?\s*$"}]}


def notes_of(model: type[BaseModel]) -> dict[str, str]:
    """Field -> the string that stands under it in the code, of ``model`` and of what it inherits from."""
    notes: dict[str, str] = {}
    for owner in reversed(model.__mro__):
        if issubclass(owner, BaseModel) and owner is not BaseModel:
            notes |= _notes_in(owner.__module__).get(owner.__qualname__, {})
    return notes


@functools.cache
def _notes_in(module: str) -> dict[str, dict[str, str]]:
    """Class -> field -> note, of a module's source."""
    tree = ast.parse(inspect.getsource(sys.modules[module]))
    found: dict[str, dict[str, str]] = {}
    for node in tree.body:
        if not isinstance(node, ast.ClassDef):
            continue
        notes = found.setdefault(node.name, {})
        for field, below in zip(node.body, node.body[1:], strict=False):
            if (
                isinstance(field, ast.AnnAssign)
                and isinstance(field.target, ast.Name)
                and isinstance(below, ast.Expr)
                and isinstance(below.value, ast.Constant)
                and isinstance(below.value.value, str)
            ):
                notes[field.target.id] = as_markdown(below.value.value)
    return found


def as_markdown(text: str) -> str:
    """A docstring's text with its code in single backticks."""
    return inspect.cleandoc(text).replace("``", "`")
