"""What images are read from: class folders, an archive of them, WebDataset tars, or the hub's Parquet."""

import itertools
import logging
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from temper.data.archives import SUFFIXES, Unpacking, entries_of, is_archive, is_tar, stem_of
from temper.data.folders import SPLIT_FOLDERS, Scan
from temper.data.hub_parquet import hub_files, unpack_parquet
from temper.data.layout import scan_source, with_patients
from temper.data.manifest import BadImage
from temper.data.walk import files_of_kind, is_junk, is_note
from temper.data.webdataset import Samples
from temper.data.whole import scratch_folder
from temper.errors import DataError

logger = logging.getLogger(__name__)

LAYOUTS = (
    f"class folders (<class>/* or train/<class>/*), an archive of them ({', '.join(SUFFIXES)}), "
    "WebDataset tars (KEY.png beside KEY.cls), or Parquet of the Hugging Face hub"
)
NUM_LOOKED_AT = 64
"""Entries of a tar that tell a WebDataset from an archive of folders."""


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
            scan = with_patients(scan, None if follow_links else self.folder.resolve())
        except DataError as problem:
            said = str(problem).replace(str(self.table or self.folder), str(self.path))
            raise DataError(said.replace(str(self.folder), str(self.path))) from None
        for doubt in scan.doubts:
            logger.warning("%s: %s", self.path, doubt)
        return scan


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
    tars = [path] if path.is_file() else files_of_kind(path, is_tar)
    return tars if tars and is_tar(tars[0]) and _is_flat(tars[0]) else []


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
        len(inside := [one for one in folder.iterdir() if not is_note(one.name)]) == 1 and inside[0].is_dir()
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
        refused += Samples(Unpacking(tar, scratch), folder, place).unpack()
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
