"""Pages of reference from JSON schemas: a section for each part, a table of its fields."""

import json
import re
from collections.abc import Iterator
from typing import Any

Schema = dict[str, Any]

LIMITS = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}


def schema_page(title: str, introduction: str, schema: Schema) -> str:
    """Markdown: ``title``, ``introduction``, and a section for the whole and for every part."""
    parts = list(_parts(schema))
    places = {name: heading for heading, name, _ in parts if name}
    lines = [f"# {title}", "", introduction, ""]
    for heading, _, part in parts:
        if heading:
            lines += [f"## {heading}", ""]
            if part.get("description"):
                lines += [part["description"], ""]
        lines += [*_table(part, places), ""]
    return "\n".join(lines)


def _parts(schema: Schema) -> Iterator[tuple[str, str, Schema]]:
    """Heading, name of the definition and content: the whole first, then each part where it is met first."""
    definitions, seen = schema.get("$defs", {}), set()

    def walk(prefix: str, part: Schema) -> Iterator[tuple[str, str, Schema]]:
        for field, content in part.get("properties", {}).items():
            path = f"{prefix}.{field}" if prefix else field
            for name in _references(content):
                if name in seen:
                    continue
                seen.add(name)
                kind = definitions[name].get("properties", {}).get("kind", {}).get("const")
                yield (f"{path}: {kind}" if kind else path), name, definitions[name]
                yield from walk(path, definitions[name])

    yield "", "", schema
    # What pretraining shares with the run itself is shown where the run has it.
    fields = sorted(schema.get("properties", {}).items(), key=lambda field: field[0] == "pretrain")
    yield from walk("", {"properties": dict(fields)})


def _references(node: Any) -> list[str]:
    """Names of the definitions that a field leads to."""
    return list(dict.fromkeys(re.findall(r'"\$ref": "#/\$defs/([^"]+)"', json.dumps(node))))


def _table(part: Schema, places: dict[str, str]) -> list[str]:
    fields = part.get("properties", {})
    if not fields:
        return []
    lines = ["| field | is | default | |", "|---|---|---|---|"]
    required = part.get("required", [])
    for name, content in fields.items():
        default = "**required**" if name in required else _default(content)
        note = " ".join(content.get("description", "").split()).replace("|", "\\|")
        lines.append(f"| `{name}` | {_type(content, places)} | {default} | {note} |")
    return lines


def _default(content: Schema) -> str:
    """As YAML has it; of parts nothing, for their fields have defaults of their own."""
    if "$ref" in content or "default" not in content:
        return ""
    value = content["default"]
    if isinstance(value, dict) and "kind" in value:
        return f"`{value['kind']}`"
    if value is None:
        return "–"
    return "`" + json.dumps(value, ensure_ascii=False).replace('"', "").replace("|", "\\|") + "`"


def _type(content: Schema, places: dict[str, str]) -> str:
    """What a value may be, in words."""
    if "$ref" in content:
        name = content["$ref"].rsplit("/", 1)[1]
        heading = places.get(name, name)
        return f"[{heading}](#{anchor(heading)})"
    if "const" in content:
        return f"`{content['const']}`"
    if "enum" in content:
        return ", ".join(f"`{value}`" for value in content["enum"])
    if "oneOf" in content or "anyOf" in content:
        return _alternatives(content, places)
    return _simple(content, places)


def _alternatives(content: Schema, places: dict[str, str]) -> str:
    options = content.get("oneOf") or content["anyOf"]
    if any("/" in option.get("pattern", "") and option.get("type") == "string" for option in options):
        number = {name: value for name, value in content.items() if name in LIMITS}
        return _simple({"type": "number", **number}, places) + " or ratio"
    kinds = [places.get(option["$ref"].rsplit("/", 1)[1], "") for option in options if "$ref" in option]
    if len(kinds) == len(options) and all(": " in kind for kind in kinds):
        return "kind: " + ", ".join(f"[{kind.rsplit(': ')[1]}](#{anchor(kind)})" for kind in kinds)
    found = [_type(option, places) for option in options if option.get("type") != "null"]
    absent = ["null"] if len(found) < len(options) else []
    return " or ".join(dict.fromkeys([*found, *absent]))


def _simple(content: Schema, places: dict[str, str]) -> str:
    kind = content.get("type", "anything")
    if kind == "array":
        inner = content.get("items") or {}
        if "prefixItems" in content:
            return "[" + ", ".join(_type(one, places) for one in content["prefixItems"]) + "]"
        return f"list of {_type(inner, places)}"
    if kind == "object":
        inner = content.get("additionalProperties")
        return f"mapping to {_type(inner, places)}" if isinstance(inner, dict) and inner else "mapping"
    limits = ", ".join(f"{sign} {content[name]:,}" for name, sign in LIMITS.items() if name in content)
    word = {"integer": "whole number", "boolean": "true or false", "string": "text"}.get(kind, kind)
    if content.get("format") == "path":
        word = "path"
    return f"{word} {limits}".strip()


def anchor(heading: str) -> str:
    """The anchor that Python-Markdown gives a heading."""
    text = re.sub(r"[^\w\s-]", "", heading).strip().lower()
    return re.sub(r"[-\s]+", "-", text)
