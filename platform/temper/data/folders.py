"""Class folders: ``SRC/train/<class>/*`` (with ``val`` and ``test`` beside it), or ``SRC/<class>/*``."""

import unicodedata
from dataclasses import dataclass
from pathlib import Path

from temper.credentials import BIDI
from temper.data.manifest import Split
from temper.errors import DataError

SPLIT_FOLDERS: dict[str, Split] = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
    "testing": "test",
}
JUNK = {"thumbs.db", "desktop.ini", "__macosx"}
"""Names that operating systems leave behind, in lower case."""
NOTE_SUFFIXES = {".txt", ".md", ".csv", ".json", ".xml"}
"""Notes beside images; any other file is meant to be one, and is reported where it is not."""


@dataclass(frozen=True)
class ImageFile:
    """A file that should be an image."""

    path: Path
    relative: str
    label: int
    split: Split


def scan_folders(source: Path) -> tuple[list[str], list[ImageFile]]:
    """Class names, sorted, and the files of every class and split, sorted by path.

    Raises:
        DataError: no such folder, no class folders, an empty class, two folders for one split, or splits
            whose classes differ.
    """
    if not source.is_dir():
        raise DataError(f"{source}: no such folder")
    roots = _split_roots(source)
    classes = sorted(folder.name for folder in _folders(roots["train"]))
    _check_names(roots["train"], classes)
    if len(classes) < 2:
        raise DataError(
            f"{roots['train']}: expected a folder for each of at least two classes, found "
            f"{', '.join(classes) or 'none'}; lay the images out as <class>/* or train/<class>/*"
        )
    files: list[ImageFile] = []
    for split, root in roots.items():
        theirs = sorted(folder.name for folder in _folders(root))
        if theirs != classes:
            raise DataError(_differing(root, theirs, roots["train"], classes))
        for label, name in enumerate(classes):
            found = _images(source, root / name, label, split)
            if not found:
                raise DataError(
                    f"{root / name}: the class '{name}' has no images; add some or remove the folder"
                )
            files += found
    return classes, files


def _check_names(root: Path, classes: list[str]) -> None:
    """Refuse names that are no text, turn the text around them, or cannot be told apart."""
    seen: dict[str, str] = {}
    for name in classes:
        if any(unicodedata.category(char) in ("Cc", "Cs", "Zl", "Zp") or ord(char) in BIDI for char in name):
            raise DataError(
                f"{root}: the class {name!a} has characters in its name that are no text (controls, bytes "
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


def _differing(root: Path, theirs: list[str], train: Path, classes: list[str]) -> str:
    parts = [f"only in {train}: {', '.join(only)}" if (only := sorted(set(classes) - set(theirs))) else ""]
    parts += [f"only in {root}: {', '.join(only)}" if (only := sorted(set(theirs) - set(classes))) else ""]
    return (
        f"{root}: its classes are not those of {train} ({'; '.join(filter(None, parts))}); "
        "every split needs the same class folders"
    )


def _split_roots(source: Path) -> dict[Split, Path]:
    roots: dict[Split, Path] = {}
    for folder in sorted(_folders(source)):
        split = SPLIT_FOLDERS.get(folder.name.lower())
        if split in roots:
            raise DataError(
                f"{source}: '{roots[split].name}' and '{folder.name}' are both the split '{split}'; keep one"
            )
        if split is not None:
            roots[split] = folder
    if not roots:
        return {"train": source}
    if "train" not in roots:
        raise DataError(f"{source}: found {', '.join(p.name for p in roots.values())}, but no 'train' folder")
    return {split: roots[split] for split in ("train", "val", "test") if split in roots}


def _folders(root: Path) -> list[Path]:
    return [path for path in root.iterdir() if path.is_dir() and not is_junk(path.name)]


def is_junk(name: str) -> bool:
    """Whether an operating system, or an editor, left it there."""
    return name.startswith(".") or name.lower() in JUNK


def _images(source: Path, folder: Path, label: int, split: Split) -> list[ImageFile]:
    # Broken links, links to folders and special files are kept: reading them says what is wrong, and
    # nothing goes unseen.
    paths = sorted(path for path in folder.rglob("*") if path.is_symlink() or not path.is_dir())
    return [
        ImageFile(path, path.relative_to(source).as_posix(), label, split)
        for path in paths
        if path.suffix.lower() not in NOTE_SUFFIXES and not any(map(is_junk, path.relative_to(folder).parts))
    ]
