"""Class folders: ``SRC/train/<class>/*`` (with ``val`` and ``test`` beside it), or ``SRC/<class>/*``."""

import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from temper.data.manifest import Split
from temper.data.walk import below, check_names, is_junk, is_note, nfc, quoted, walk, walk_names
from temper.errors import DataError

SPLIT_FOLDERS: dict[str, Split] = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "dev": "val",
    "development": "val",
    "test": "test",
    "testing": "test",
    "holdout": "test",
    "hold-out": "test",
    "hold_out": "test",
}
KNOWN = "train (training), val (valid, validation, dev, development) and test (testing, holdout)"


@dataclass(frozen=True)
class ImageFile:
    """A file that should be an image."""

    path: Path
    relative: str
    label: int
    split: Split
    values: tuple[str | None, ...] = ()
    """Of the attributes of its scan, in their order; ``None`` where nothing is known."""


class Scan(NamedTuple):
    """What lies in a source folder."""

    classes: list[str]
    """Sorted."""
    files: list[ImageFile]
    """Of every class and split, sorted by path."""
    strays: list[str]
    """Relative paths of files that lie in no class folder."""
    notes: list[str]
    """Relative paths of notes beside images and of files that operating systems leave behind."""
    attributes: tuple[str, ...] = ()
    """What is known of each file beside its class, such as ``group`` and ``site``."""
    doubts: tuple[str, ...] = ()
    """Why something else may be meant than these classes, files and groups."""


def scan_folders(source: Path, *, follow_links: bool = False) -> Scan:
    """Every file of ``source``: those of the classes, and those that are left out.

    Raises:
        DataError: no such folder, no class folders, an empty class, two folders for one split, splits whose
            classes differ, folders that may be splits or classes, or one of these that cannot be read.
    """
    if not source.is_dir():
        raise DataError(f"{source}: no such folder")
    try:
        return _scan(source, follow_links)
    except OSError as problem:
        raise DataError(f"{problem.filename}: cannot be read ({problem.strerror})") from None


def _scan(source: Path, follow: bool) -> Scan:
    roots = _split_roots(source)
    classes = sorted(_by_class(roots["train"]))
    if len(classes) < 2:
        raise DataError(
            f"{roots['train']}: expected a folder for each of at least two classes, found "
            f"{', '.join(classes) or 'none'}{_files_in(roots['train'])}; lay the images out as <class>/* or "
            "train/<class>/*, in folders or an archive; or give a table (--labels CSV) or WebDataset tars"
        )
    files: list[ImageFile] = []
    for split, root in roots.items():
        own = _by_class(root)
        if sorted(own) != classes:
            raise DataError(_differing(root, sorted(own), roots["train"], classes))
        for label, name in enumerate(classes):
            found = _images(source, own[name], label, split, follow)
            if not found:
                raise DataError(
                    f"{own[name]}: the class '{name}' has no images; add some or remove the folder"
                )
            files += found
    folders = [folder for root in roots.values() for folder in _folders(root)]
    return Scan(classes, files, *left_out(source, files, list(roots.values()), folders, follow))


def _by_class(root: Path) -> dict[str, Path]:
    """Name of a class in NFC -> its folder: macOS spells accents with characters of their own."""
    folders = _folders(root)
    check_names(root, [folder.name for folder in folders])
    return {nfc(folder.name): folder for folder in folders}


def _files_in(folder: Path) -> str:
    """How many files of which kinds lie directly in it, for an error."""
    kinds = Counter(
        path.suffix.lower() for path in folder.iterdir() if path.is_file() and not is_junk(path.name)
    )
    found = [f"{count} {kind or 'without a suffix'}" for kind, count in kinds.most_common(5)]
    return f" and files: {', '.join(found)}" if found else ""


def left_out(
    source: Path, files: Sequence[ImageFile], roots: Sequence[Path], classes: Sequence[Path], follow: bool
) -> tuple[list[str], list[str]]:
    """Strays, and notes: what of ``source`` is not in ``files``, those of the ``classes``."""
    known = {str(one) for one in (*(file.path for file in files), *roots, *classes)}  # some are links
    left = [below(Path(name), source) for name in walk_names(source, follow) if name not in known]
    strays = [
        name for name in left if not is_note(name) and not any(map((source / name).is_relative_to, classes))
    ]
    return sorted(strays), sorted({*left} - {*strays})


def _differing(root: Path, theirs: list[str], train: Path, classes: list[str]) -> str:
    parts = [f"only in {train}: {', '.join(only)}" if (only := sorted(set(classes) - set(theirs))) else ""]
    parts += [f"only in {root}: {', '.join(only)}" if (only := sorted(set(theirs) - set(classes))) else ""]
    return (
        f"{root}: its classes are not those of {train} ({'; '.join(filter(None, parts))}); "
        "every split needs the same class folders"
    )


def _split_roots(source: Path) -> dict[Split, Path]:
    """The folder of each split; without split folders ``source`` itself, which then is all training."""
    folders = _folders(source)
    splits = {folder: SPLIT_FOLDERS[folder.name.lower()] for folder in folders if _is_split(folder)}
    others = [folder for folder in folders if folder not in splits and _has_images(folder)]
    flat = [
        folder for folder in splits if _has_images(folder) and not any(map(_has_images, _folders(folder)))
    ]
    if not splits or (others and len(flat) == len(splits)):
        _refuse_hidden_splits(source, folders)
        return {"train": source}
    if others:
        raise DataError(_beside(source, list(splits), others))
    if flat:
        raise DataError(
            f"{source}: {_quoted(flat)} has images, but no class folders; lay splits out as "
            f"{flat[0].name}/<class>/*, or rename the folder if '{flat[0].name}' is a class"
        )
    roots: dict[Split, Path] = {}
    for folder, split in splits.items():
        if split in roots:
            raise DataError(
                f"{source}: '{roots[split].name}' and '{folder.name}' are both the split '{split}'; keep one"
            )
        roots[split] = folder
    if "train" not in roots:
        raise DataError(f"{source}: found {', '.join(p.name for p in roots.values())}, but no 'train' folder")
    return {split: roots[split] for split in ("train", "val", "test") if split in roots}


def _beside(source: Path, splits: Sequence[Path], others: Sequence[Path]) -> str:
    count = sum(1 for folder in others for _ in _images_in(folder))
    return (
        f"{source}: {_quoted(others)} with {count} file(s) would be ignored, because {_quoted(splits)} "
        f"beside it names a split; splits are called {KNOWN}: rename the folder if it is one. If "
        f"'{splits[0].name}' is a class, rename it, or put every class into {source}/train/. Move away what "
        "is neither"
    )


def _refuse_hidden_splits(source: Path, classes: Sequence[Path]) -> None:
    """Refuse ``<class>/train`` and ``<class>/test``, all training images, and two "classes" that are splits.

    Raises:
        DataError: every class has folders that are called like splits, of at least two kinds, and no others;
            or folders whose names speak of several splits, as ``train_images`` does, hold the same folders.
    """
    within = [[folder for folder in _folders(name) if _has_images(folder)] for name in classes]
    kinds = {SPLIT_FOLDERS.get(folder.name.lower()) for folders in within for folder in folders}
    if within and all(within) and None not in kinds and len(kinds) > 1:
        raise DataError(
            f"{source}: the splits {_quoted(within[0])} lie within the classes and would be ignored; lay the "
            f"images out as {within[0][0].name}/<class>/*, or rename these folders"
        )
    alike = [folder for folder in classes if split_in(folder.name)]
    inside = [{one.name for one in _folders(folder) if _has_images(one)} for folder in alike]
    if len({split_in(folder.name) for folder in alike}) > 1 and len(set.intersection(*inside)) > 1:
        raise DataError(
            f"{source}: {_quoted(alike)} look like splits, but would be classes; splits are called {KNOWN}: "
            "rename these folders, also if they are classes"
        )


def split_in(name: str) -> Split | None:
    """The split that a folder's name speaks of, as ``training_set``, ``val2017`` and ``images-test`` do."""
    words = (word.removesuffix("set") for word in re.split("[^a-z]+", name.lower()))
    return next((SPLIT_FOLDERS[word] for word in words if word in SPLIT_FOLDERS), None)


def _quoted(folders: Sequence[Path]) -> str:
    return quoted([folder.name for folder in folders])


def _is_split(folder: Path) -> bool:
    return folder.name.lower() in SPLIT_FOLDERS


def _folders(root: Path) -> list[Path]:
    """Sorted; without those that hold shards, whose files are strays."""
    with os.scandir(root) as entries:  # which tell links and folders from files without a look at each
        named = [(entry, Path(root, entry.name)) for entry in entries if not is_junk(entry.name)]
        found = [path for entry, path in named if (path if entry.is_symlink() else entry).is_dir()]
    return sorted(path for path in found if not _holds_shards(path))


def _holds_shards(folder: Path) -> bool:
    try:
        return (folder / "manifest.json").is_file() and any(folder.glob("*.parquet"))
    except PermissionError:  # named where its files are looked for
        return False


def _images_in(folder: Path) -> Iterator[Path]:
    """Files that are meant to be images, at any depth."""
    return (path for path in walk(folder) if not is_note(below(path, folder)))


def _has_images(folder: Path) -> bool:
    return any(True for _ in _images_in(folder))


def _images(source: Path, folder: Path, label: int, split: Split, follow: bool) -> list[ImageFile]:
    # Broken links, links to folders and special files are kept: reading them says what is wrong, and
    # nothing goes unseen.
    return [
        ImageFile(path, nfc(below(path, source)), label, split)
        for path in sorted(walk(folder, follow), key=lambda path: nfc(path.as_posix()).split("/"))
        if not is_note(below(path, folder))
    ]
