"""The page of the command line, from the parser itself."""

import re
from typing import Any


def cli_page() -> str:
    """Markdown: a section for each command with its arguments, options and example."""
    import typer

    import temper.cli  # noqa: F401  # commands enter the application as they are imported
    from temper.cli.options import app

    lines = [
        "# Command line",
        "",
        "Exit status: 0 done, 1 failed, 2 wrong use, 130 interrupted. `--json` puts the summary on stdout as",
        "one JSON object; what goes on is said on stderr. `temper COMMAND --help` shows what stands here.",
        "",
    ]
    for name, command in sorted(typer.main.get_command(app).commands.items()):  # type: ignore[attr-defined]
        lines += _section(f"temper {name}", command)
        for below, part in getattr(command, "commands", {}).items():
            lines += _section(f"temper {name} {below}", part)
    return "\n".join(lines)


def _section(name: str, command: Any) -> list[str]:
    lines = [f"## {name}", "", _words(command.help or ""), ""]
    parameters = [one for one in command.params if not getattr(one, "hidden", False)]
    if not parameters:
        return lines
    lines += ["| | | default |", "|---|---|---|"]
    for one in parameters:
        lines.append(f"| {_written(one)} | {_words(one.help or '')} | {_default(one)} |")
    epilog = re.sub(r"\s+", " ", command.epilog or "")
    for example in re.split(r"\s*Example: ", epilog)[1:]:
        call, _, rest = example.partition(". `")
        lines += ["", f"```bash\n{call.strip()}\n```"]
        lines += ["", f"`{rest.strip()}"] if rest else []
    return [*lines, ""]


def _written(one: Any) -> str:
    if one.param_type_name == "argument":
        name = (one.metavar or one.name).upper()
        return f"`{name}`" if one.required else f"`[{name}]`"
    names = ", ".join(f"`{name}`" for name in (*one.opts, *one.secondary_opts))
    if one.is_flag:
        return names
    return f"{names} `{one.metavar or one.name.upper()}`"


def _default(one: Any) -> str:
    if one.required:
        return "**required**"
    value = one.default
    if value is None or value is False or callable(value) or value == []:
        return ""
    return f"`{str(value).lower() if value is True else value}`"


def _words(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")
