"""Files of the repository that pages link to, as pages of the site, so that it is whole without a network."""

import os
import re
from pathlib import Path

LINK = re.compile(r"(\]\()([^)#\s]+)(#[^)\s]*)?(\))")
LANGUAGES = {
    ".py": "python",
    ".yaml": "yaml",
    ".yml": "yaml",
    ".toml": "toml",
    ".md": "markdown",
    ".cff": "yaml",
}


def linked_sources(root: Path) -> dict[str, str]:
    """Page -> markdown, for every file outside ``docs`` that a page in there links to."""
    pages: dict[str, str] = {}
    for page in sorted((root / "docs").rglob("*.md")):
        for _, target, _, _ in LINK.findall(page.read_text(encoding="utf-8")):
            file = _outside(page, target, root)
            if file is not None and file.is_file():
                pages[_page_of(file, root)] = _shown(file, root)
    return pages


def with_source_links(text: str, page: Path, root: Path) -> str:
    """``text`` of ``page`` with links out of ``docs`` turned to the pages that show those files."""

    def turn(match: re.Match[str]) -> str:
        file = _outside(page, match[2], root)
        if file is None or not file.is_file():
            return match[0]
        place = os.path.relpath(root / "docs" / _page_of(file, root), page.parent)
        return f"{match[1]}{Path(place).as_posix()}{match[4]}"

    return LINK.sub(turn, text)


def _outside(page: Path, target: str, root: Path) -> Path | None:
    """The file that a relative link means, where it is of the repository but not of ``docs``."""
    if "://" in target or target.startswith("mailto:"):
        return None
    file = (page.parent / target).resolve()
    if file.is_relative_to(root / "docs") or not file.is_relative_to(root):
        return None
    return file


def _page_of(file: Path, root: Path) -> str:
    return f"source/{file.relative_to(root).as_posix()}.md"


def _shown(file: Path, root: Path) -> str:
    name = file.relative_to(root).as_posix()
    text = file.read_text(encoding="utf-8")
    fence = "`" * max(3, *(len(run) + 1 for run in re.findall(r"`{3,}", text)), 3)
    return f"# {name}\n\n{fence}{LANGUAGES.get(file.suffix, 'text')}\n{text}\n{fence}\n"
