"""Text of unknown origin inside Markdown."""

import re


def escape_markdown(text: str) -> str:
    """Text that Markdown takes literally, on one line."""
    flat = " ".join(text.split())
    escaped = re.sub(r"([\\`*_\[\]|~#])", r"\\\1", flat)
    return escaped.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
