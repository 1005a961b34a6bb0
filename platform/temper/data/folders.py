"""Class folders: ``SRC/train/<class>/*`` (with ``val`` and ``test`` beside it), or ``SRC/<class>/*``."""

from dataclasses import dataclass
from pathlib import Path

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
JUNK = {"thumbs.db", "desktop.ini"}


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
        DataError: no such folder, no class folders, an empty class, or splits whose classes differ.
    """
    if not source.is_dir():
        raise DataError(f"{source}: no such folder")
    roots = _split_roots(source)
    classes = sorted(folder.name for folder in _folders(roots["train"]))
    if len(classes) < 2:
        raise DataError(
            f"{roots['train']}: expected a folder for each of at least two classes, found "
            f"{', '.join(classes) or 'none'}; lay the images out as <class>/* or train/<class>/*"
        )
    files: list[ImageFile] = []
    for split, root in roots.items():
        theirs = sorted(folder.name for folder in _folders(root))
        if theirs != classes:
            differing = sorted(set(theirs) ^ set(classes))
            raise DataError(f"{root}: its classes are not those of {roots['train']} ({', '.join(differing)})")
        for label, name in enumerate(classes):
            found = _images(source, root / name, label, split)
            if not found:
                raise DataError(
                    f"{root / name}: the class '{name}' has no images; add some or remove the folder"
                )
            files += found
    return classes, files


def _split_roots(source: Path) -> dict[Split, Path]:
    roots = {SPLIT_FOLDERS[f.name.lower()]: f for f in _folders(source) if f.name.lower() in SPLIT_FOLDERS}
    if not roots:
        return {"train": source}
    if "train" not in roots:
        raise DataError(f"{source}: found {', '.join(p.name for p in roots.values())}, but no 'train' folder")
    return {split: roots[split] for split in ("train", "val", "test") if split in roots}


def _folders(root: Path) -> list[Path]:
    return [path for path in root.iterdir() if path.is_dir() and not path.name.startswith(".")]


def _images(source: Path, folder: Path, label: int, split: Split) -> list[ImageFile]:
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return [
        ImageFile(path, path.relative_to(source).as_posix(), label, split)
        for path in paths
        if not path.name.startswith(".") and path.name.lower() not in JUNK
    ]
