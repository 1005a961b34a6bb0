"""Text of unknown origin inside Markdown and in spreadsheets."""

import re


def escape_markdown(text: str) -> str:
    """Text that Markdown takes literally, on one line."""
    flat = " ".join(text.split())
    escaped = re.sub(r"([\\`*_\[\]|~#])", r"\\\1", flat)
    return escaped.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def spreadsheet_cell(value: object) -> object:
    """A cell of a CSV file that no spreadsheet takes for a formula; empty for ``None``."""
    if isinstance(value, str) and value[:1] in ("=", "+", "-", "@", "\t", "\r"):
        return f"'{value}"
    return "" if value is None else value
