"""What images are read from: class folders, an archive of them, WebDataset tars, or the hub's Parquet."""

import itertools
import logging
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from temper.data.archives import SUFFIXES, Entry, Unpacking, entries_of, is_archive, is_tar, stem_of
from temper.data.folders import SPLIT_FOLDERS, Scan
from temper.data.hub_parquet import hub_files, unpack_parquet
from temper.data.layout import scan_source, with_patients
from temper.data.manifest import BadImage
from temper.data.walk import NOTE_SUFFIXES, is_junk, is_note, nfc
from temper.data.whole import scratch_folder
from temper.errors import DataError

logger = logging.getLogger(__name__)

LAYOUTS = (
    f"class folders (<class>/* or train/<class>/*), an archive of them ({', '.join(SUFFIXES)}), "
    "WebDataset tars (KEY.png beside KEY.cls), or Parquet of the Hugging Face hub"
)
MAX_LABEL_BYTES = 1024
NUM_LOOKED_AT = 64
"""Entries of a tar that tell a WebDataset from an archive of folders."""
PENDING = ".pending"
"""Where images lie until their class is known."""


@dataclass(frozen=True)
class Source:
    """Class folders, and where they come from."""

    path: Path
    """As it was given."""
    folder: Path
    refused: list[BadImage] = field(default_factory=list)
    """Entries of an archive that were not unpacked."""
    table: Path | None = None
    """Of labels, where what was unpacked brings one."""

    @property
    def name(self) -> str:
        return stem_of(self.path.resolve())

    def scan(
        self, labels: Path | None = None, group: str | None = None, *, follow_links: bool = False
    ) -> Scan:
        """The files of the class folders.

        Raises:
            DataError: as ``scan_source``; it names the archive.
        """
        if self.table is not None and labels is not None:
            raise DataError(f"{labels}: would be ignored, because {self.path} has labels; omit --labels")
        try:
            scan = scan_source(self.folder, labels or self.table, group, follow_links=follow_links)
            return with_patients(scan, None if follow_links else self.folder.resolve())
        except DataError as problem:
            said = str(problem).replace(str(self.table or self.folder), str(self.path))
            raise DataError(said.replace(str(self.folder), str(self.path))) from None


@contextmanager
def opened_source(path: Path, destination: Path) -> Iterator[Source]:
    """The class folders of ``path``; those of archives are unpacked beside ``destination`` and removed again.

    Raises:
        DataError: nothing there, a file that is no archive, or an archive that cannot be read.
    """
    tars, parquet = webdataset_tars(path), hub_files(path)
    if path.is_dir() and not tars and not parquet:
        yield Source(path, path)
        return
    if not path.exists():
        raise DataError(f"{path}: no such folder")
    if not tars and not parquet and not (path.is_file() and is_archive(path)):
        kind = f"a '{path.suffix}' file" if path.suffix else "neither a folder nor an archive"
        raise DataError(f"{path}: {kind}; expected {LAYOUTS}")
    with scratch_folder(destination) as scratch:
        if parquet:
            named = [(file, _split_of(_below(file, path))) for file in parquet]
            images, table = scratch / "images", scratch / "labels.csv"
            images.mkdir()
            yield Source(path, images, unpack_parquet(named, images, table), table)
        else:
            yield _of_tars(path, tars, scratch) if tars else _of_archive(path, scratch)


def _below(file: Path, path: Path) -> Path:
    return file.relative_to(path.parent if path.is_file() else path)


def webdataset_tars(path: Path) -> list[Path]:
    """The tars of a WebDataset, which hold files and no folders; sorted, empty where it is none."""
    if path.is_file():
        tars = [path] if is_tar(path) else []
    else:
        tars = []
        for folder, _, names in os.walk(path):
            files = [Path(folder, name) for name in names if not is_note(Path(name))]
            if not all(map(is_tar, files)):
                return []
            tars += files
    return sorted(tars) if tars and _is_flat(tars[0]) else []


def _is_flat(tar: Path) -> bool:
    """Whether the first files have labels beside them, or lie in no folder."""
    with entries_of(tar) as entries:
        names = [entry.name.removeprefix("./") for entry in itertools.islice(entries, NUM_LOOKED_AT)]
    has_folders = not names or any("/" in name for name in names)
    return any(name.endswith(".cls") for name in names) or not has_folders


def _of_archive(path: Path, scratch: Path) -> Source:
    """The class folders of a zip or tar file."""
    unpacking = Unpacking(path, scratch)
    with entries_of(path) as entries:
        for entry in entries:
            unpacking.write(entry, entry.name)
    folder = scratch
    # Most archives hold one folder, with all the others in it.
    while (
        len(inside := [one for one in folder.iterdir() if not is_note(Path(one.name))]) == 1
        and inside[0].is_dir()
    ):
        if inside[0].name.lower() in SPLIT_FOLDERS:
            break
        folder = inside[0]
    return Source(path, folder, unpacking.refused)


def _of_tars(path: Path, tars: Sequence[Path], scratch: Path) -> Source:
    """WebDataset's tars as class folders: ``<split>/<class>/<tar>/<key>.png``, or without splits."""
    folders = {tar: _split_of(_below(tar, path)) for tar in tars}
    refused: list[BadImage] = []
    names = Counter(tar.name for tar in tars)
    for tar, folder in folders.items():
        place = tar.name if names[tar.name] == 1 else _below(tar, path).as_posix()
        refused += _Samples(Unpacking(tar, scratch), folder, place).unpack()
    _pad_numbers({scratch / folder for folder in folders.values()})
    return Source(path, scratch, refused)


def _split_of(tar: Path) -> str:
    """The name of a split in that of a tar, such as ``train`` of ``birds-train-000000.tar``."""
    words = re.split(r"[^a-z]+", tar.as_posix().lower())
    return next((word for word in words if word in SPLIT_FOLDERS), "")


def _pad_numbers(roots: Iterable[Path]) -> None:
    """Give classes that are numbers the same width, so that their names sort as the numbers do."""
    found = (folder for root in roots if root.is_dir() for folder in root.iterdir())
    folders = [folder for folder in found if folder.is_dir() and not is_junk(folder.name)]
    if all(re.fullmatch("[0-9]+", folder.name) for folder in folders):
        width = max((len(folder.name) for folder in folders), default=0)
        for folder in folders:
            folder.rename(folder.with_name(folder.name.zfill(width)))


@dataclass
class _Samples:
    """The samples of one tar: files of the same key, one of which, ``.cls``, is the class."""

    unpacking: Unpacking
    folder: str
    place: str
    key: str = ""
    label: str | None = None
    pending: list[str] = field(default_factory=list)
    unused: Counter[str] = field(default_factory=Counter)
    num_labels: int = 0
    num_images: int = 0

    def unpack(self) -> list[BadImage]:
        """Write every image into the folder of its class; returns what was not.

        Raises:
            DataError: no labels at all, or one that cannot be a folder.
        """
        tar, seen = self.unpacking.archive, Counter[str]()
        with entries_of(tar) as entries:
            for entry in entries:
                head, _, name = entry.name.rpartition("/")
                stem, _, suffix = name.partition(".")
                if is_junk(name):
                    continue
                seen["." + suffix] += 1
                if f"{head}/{stem}" != self.key:
                    self._flush()
                    self.key = f"{head}/{stem}"
                self._take(entry, suffix)
            self._flush()
        if not self.num_labels:
            found = ", ".join(sorted(seen)) or "nothing"
            raise DataError(
                f"{tar}: a tar without labels: expected KEY.cls beside each KEY.png, found {found}"
            )
        if not self.num_images and self.unpacking.refused:
            raise DataError(f"{tar}: no image has a label: KEY.png and KEY.cls must follow one another")
        if self.unused:
            listed = ", ".join(f"{count} .{suffix}" for suffix, count in sorted(self.unused.items()))
            logger.warning("%s: not used: %s files; only KEY.cls says the class", tar, listed)
        return self.unpacking.refused

    def _take(self, entry: Entry, suffix: str) -> None:
        if suffix == "cls" and entry.opened is not None:
            self.label = nfc(entry.opened.read(MAX_LABEL_BYTES).decode(errors="surrogateescape").strip())
            self.num_labels += 1
        elif f".{suffix.rpartition('.')[2].lower()}" in NOTE_SUFFIXES:
            self.unused[suffix] += 1
        else:
            name = f"{PENDING}/{self.place}/{entry.name}"
            if self.unpacking.write(entry, name):
                self.pending.append(name)

    def _flush(self) -> None:
        """The images of a key go to their class."""
        root, label = self.unpacking.folder, self.label
        for name in self.pending:
            if label is None:
                self._refuse(name, "no KEY.cls beside it")
                continue
            if (
                any(char in label for char in "/\0")
                or is_junk(label)
                or not 0 < len(os.fsencode(label)) < 256
            ):
                where = f"{self.unpacking.archive}: '{self.key.strip('/')}.cls'"
                raise DataError(f"{where}: the class {label[:60]!a} cannot be the name of a folder")
            target = root / self.folder / label / name.removeprefix(f"{PENDING}/")
            if target.exists():
                self._refuse(name, "its name is in the archive already")
                continue
            target.parent.mkdir(parents=True, exist_ok=True)
            (root / name).rename(target)
            self.num_images += 1
        self.pending, self.label = [], None

    def _refuse(self, name: str, reason: str) -> None:
        (self.unpacking.folder / name).unlink()
        path = ascii(name.removeprefix(f"{PENDING}/"))[1:-1]
        self.unpacking.refused.append(BadImage(path=path, reason=reason))
