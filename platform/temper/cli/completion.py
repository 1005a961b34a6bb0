"""The command that prints what a shell needs to complete commands, options and fields of recipes."""

import typing
from typing import Annotated, Any

import typer

from temper.cli.completion_scripts import SCRIPTS, Option, Place
from temper.cli.options import Shell, app


@app.command(epilog="Example: temper completion bash > ~/.local/share/bash-completion/completions/temper")
def completion(
    shell: Annotated[Shell, typer.Argument(help="Your shell.")],
) -> None:
    """Print a shell completion script. Save it to a file: it takes seconds to make.

    It completes commands, options and recipe fields.
    """
    typer.echo(SCRIPTS[shell](list(places()), recipe_fields()), nl=False)


def places() -> typing.Iterator[Place]:
    """The application itself under the empty name, then each of its commands, from the parser."""

    def visit(name: str, command: Any) -> typing.Iterator[Place]:
        inner = getattr(command, "commands", {})
        parameters = [*command.params, *(inner["run"].params if "run" in inner else [])]
        words = [*inner, *(word for one in parameters for word in _listed(one))]
        options = [_option(one) for one in parameters if _is_shown_option(one)]
        yield Place(name, tuple(words), (*options, Option(("--help", "-h"), "Show help.", False)))
        for word, below in inner.items():
            yield from visit(f"{name} {word}".strip(), below)

    yield from visit("", typer.main.get_command(app))


def _is_shown_option(parameter: Any) -> bool:
    return parameter.param_type_name == "option" and not parameter.hidden


def _option(parameter: Any) -> Option:
    names = (*parameter.opts, *parameter.secondary_opts)
    return Option(names, " ".join((parameter.help or "").split()), not parameter.is_flag)


def _listed(parameter: Any) -> tuple[str, ...]:
    """What an argument may be, where its type lists it."""
    annotation = parameter.type_descriptor.annotation
    is_listed = parameter.param_type_name == "argument" and typing.get_origin(annotation) is typing.Literal
    return typing.get_args(annotation) if is_listed else ()


def recipe_fields() -> list[str]:
    """Every dotted path that ``--set`` takes, of all kinds, sorted."""
    from temper.cli.schemas import build_schema

    schema = build_schema("recipe")
    found: set[str] = set()

    def visit(prefix: str, node: Any) -> None:
        for name, content in node.get("properties", {}).items():
            found.add(f"{prefix}{name}")
            for part in (content, *content.get("anyOf", []), *content.get("oneOf", [])):
                for inner in (part, *part.get("oneOf", [])):
                    if "$ref" in inner:
                        visit(f"{prefix}{name}.", schema["$defs"][inner["$ref"].rsplit("/", 1)[1]])

    visit("", schema)
    return sorted(found)
