"""Files at any depth of a folder, which of them are meant to be images, and names that tell classes apart."""

import os
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from temper.credentials import BIDI
from temper.errors import DataError
from temper.formats import one_line

JUNK = {
    "thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r", "__macosx", "@eadir", "$recycle.bin",
    "system volume information", "lost+found",
}  # fmt: skip
"""Names that operating systems leave behind, in lower case."""
IMAGE_SUFFIXES = (
    ".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".gif", ".ppm", ".pgm", ".avif", ".heic"
)  # fmt: skip
"""Of images other than DICOM."""
NOTE_SUFFIXES = (".txt", ".md", ".csv", ".json", ".xml")
"""Notes beside images; any other file is meant to be one, and is reported where it is not."""


def walk(folder: Path, follow: bool = False) -> Iterator[Path]:
    """Every file, at any depth; also folders that cannot be read, and links to folders that are not followed.

    Those are links into a folder around them, and all where ``follow`` is not set.
    """
    return map(Path, walk_names(folder, follow))


def walk_names(folder: Path, follow: bool = False) -> Iterator[str]:
    """The same as text: a path for each of many files takes longer than finding them."""
    unreadable: list[OSError] = []
    for root, folders, names in os.walk(folder, onerror=unreadable.append, followlinks=follow):
        inside = "" if root == "." else f"{root.removeprefix('./').rstrip('/')}/"
        yield from (inside + name for name in names)
        paths = {name: Path(root, name) for name in folders}
        links = [
            name for name, path in paths.items() if path.is_symlink() and not (follow and _is_below(path))
        ]
        yield from (str(paths[name]) for name in links)
        folders[:] = [name for name in folders if name not in links]
    yield from (str(Path(problem.filename)) for problem in unreadable)


def _is_below(link: Path) -> bool:
    """Whether a link leads to a folder that it does not lie in, also by way of other links."""
    target = link.resolve()
    return not any(parent.resolve().is_relative_to(target) for parent in link.parents)


def below(path: Path, folder: Path) -> str:
    """``path`` relative to a ``folder`` that it lies in; `relative_to` also checks that, file by file."""
    return "/".join(path.parts[len(folder.parts) :])


def is_note(relative: str) -> bool:
    """Whether the file, relative to the source, is a note, or was left behind by an operating system."""
    return relative.lower().endswith(NOTE_SUFFIXES) or any(map(is_junk, relative.split("/")))


def files_of_kind(folder: Path, is_of_kind: Callable[[Path], bool]) -> list[Path]:
    """All files of ``folder`` but notes, sorted; empty where one of them is not of the kind."""
    found: list[Path] = []
    for root, _, names in os.walk(folder):
        for name in names:
            if is_note(name):
                continue
            found.append(Path(root, name))
            if not is_of_kind(found[-1]):
                return []
    return sorted(found)


def is_junk(name: str) -> bool:
    """Whether an operating system, or an editor, left it there."""
    return name.startswith(".") or name.endswith("~") or name.lower() in JUNK


def nfc(name: str) -> str:
    """``name`` with each accent and its letter as one character, where there is such a one."""
    return unicodedata.normalize("NFC", name)


def quoted(names: Sequence[str]) -> str:
    """The first five of them, for a message."""
    more = [f"{len(names) - 5} more"] if len(names) > 5 else []
    return ", ".join([*(f"'{one_line(name)}'" for name in names[:5]), *more])


def check_names(root: Path, classes: list[str]) -> None:
    """Refuse names that are no text, turn the text around them, or cannot be told apart."""
    seen: dict[str, str] = {}
    for name in classes:
        if any(unicodedata.category(char) in ("Cc", "Cs", "Zl", "Zp") or ord(char) in BIDI for char in name):
            raise DataError(
                f"{root}: the class {name!a} has characters in its name that are not text (controls, bytes "
                "that are not UTF-8, changes of direction); rename the folder"
            )
        visible = "".join(char for char in name if unicodedata.category(char) != "Cf")
        plain = unicodedata.normalize("NFKC", visible).strip()
        if plain in seen:
            raise DataError(
                f"{root}: the names of the classes {seen[plain]!a} and {name!a} look alike; "
                "rename or join the folders"
            )
        seen[plain] = name
