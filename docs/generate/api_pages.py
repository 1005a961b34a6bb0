"""Pages of the Python API, from signatures and docstrings."""

import importlib
import inspect
import re
import types
import typing
from typing import Any

MODULES = (
    "temper.recipe",
    "temper.data",
    "temper.batches",
    "temper.models",
    "temper.models.adapters",
    "temper.schedules",
    "temper.objective",
    "temper.attacks",
    "temper.hardening",
    "temper.evaluation",
    "temper.evaluation.members",
    "temper.search",
    "temper.training",
    "temper.deployment",
    "temper.records",
    "temper.comparison",
    "temper.verification",
    "temper.statistics",
    "temper.leaderboard",
    "temper.explain",
    "temper.tracking",
    "temper.errors",
)


def api_pages() -> dict[str, str]:
    """File name -> markdown: the package itself, and one page for each module that is meant to be used."""
    pages = {"api/temper.md": _page("temper", "# `import temper`")}
    for name in MODULES:
        pages[f"api/{name}.md"] = _page(name, f"# {name}")
    return pages


def _page(name: str, title: str) -> str:
    module = importlib.import_module(name)
    lines = [title, "", _words(module.__doc__ or ""), ""]
    for public in _public(module):
        value = getattr(module, public)
        if inspect.ismodule(value):  # a package that can be called as its function of that name
            value = getattr(value, public, None)
        if inspect.isclass(value):
            lines += _class(public, value)
        elif inspect.isroutine(value):
            lines += [f"## {public}", "", *_signature(public, value), _words(inspect.getdoc(value) or ""), ""]
    return "\n".join(lines)


def _public(module: Any) -> list[str]:
    """``__all__``, or else what the module itself defines."""
    names = getattr(module, "__all__", None)
    if names is not None:
        return [name for name in names if not name.startswith("_")]
    return [
        name
        for name, value in vars(module).items()
        if getattr(value, "__module__", None) == module.__name__ and not name.startswith("_")
    ]


def _class(name: str, value: type) -> list[str]:
    lines = [f"## {name}", ""]
    fields = getattr(value, "model_fields", None)
    if fields is None and not issubclass(value, BaseException):
        lines += _signature(name, value)
    lines += [_words(_own_doc(value)), ""]
    if fields:
        shown = (f"`{field}: {_annotation(about.annotation)}`" for field, about in fields.items())
        lines += ["Fields: " + ", ".join(shown), ""]
    for method, function in vars(value).items():
        plain = getattr(function, "__func__", function)
        if method.startswith("_") or not inspect.isfunction(plain) or not plain.__doc__:
            continue
        lines += [
            f"### {name}.{method}",
            "",
            *_signature(method, plain),
            _words(inspect.getdoc(plain) or ""),
            "",
        ]
    return lines


def _own_doc(value: type) -> str:
    """Its docstring; not the generated one of a dataclass, nor pydantic's."""
    text = inspect.cleandoc(value.__dict__.get("__doc__") or "")
    return "" if text.startswith(f"{value.__name__}(") else text


def _signature(name: str, value: Any) -> list[str]:
    overloads = typing.get_overloads(value) if inspect.isfunction(value) else []
    if overloads:
        return [line for one in overloads for line in _one_signature(name, one)]
    return _one_signature(name, value)


def _one_signature(name: str, value: Any) -> list[str]:
    try:
        text = str(inspect.signature(value))
    except (TypeError, ValueError):
        return []
    text = re.sub(
        r"\b(?:temper|torch|pathlib|collections\.abc|numpy|typing|nn|modules)\.(?:[a-z_]+\.)*", "", text
    )
    if len(text) > 90:
        text = re.sub(r"(?<=\()(?=\S)|(?<=, )(?=\**\w+[:=,)]|\*, )", "\n    ", text, count=0)
    return ["```python", f"{name}{text}", "```", ""]


def _annotation(annotation: Any) -> str:
    """A type in short; ``kinds`` where there are many."""
    origin, parts = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        text = _annotation(parts[0])
    elif origin in (typing.Union, types.UnionType):
        text = " | ".join(dict.fromkeys(map(_annotation, parts)))
    elif origin is typing.Literal:
        text = " | ".join(map(repr, parts))
    else:
        text = re.sub(r"(?:\w+\.)+(?=\w)", "", inspect.formatannotation(annotation))
        text = text.removesuffix("Type") if text == "NoneType" else text
    return "kinds" if len(text) > 70 else text


def _words(text: str) -> str:
    """A docstring as markdown: code in single backticks, raised errors as a list."""
    text = re.sub(r"``(.+?)``", r"`\1`", text, flags=re.DOTALL)
    before, found, after = text.partition("Raises:\n")
    if not found:
        return before
    raised = [line.strip() for line in re.sub(r"\n {8,}", " ", after).splitlines() if line.strip()]
    return (
        before
        + "\nRaises:\n\n"
        + "\n".join(f"- `{line.partition(':')[0]}`:{line.partition(':')[2]}" for line in raised)
    )
