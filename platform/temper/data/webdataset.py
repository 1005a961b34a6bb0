"""The samples of a WebDataset's tar, and the folders of their classes."""

import json
import logging
import os
from collections import Counter
from dataclasses import dataclass, field

from temper.data.archives import Entry, Unpacking, entries_of
from temper.data.manifest import BadImage
from temper.data.walk import NOTE_SUFFIXES, is_junk, nfc
from temper.errors import DataError

logger = logging.getLogger(__name__)

MAX_LABEL_BYTES = 1024
PENDING = ".pending"
"""Where images lie until their class is known."""


@dataclass
class Samples:
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
            self._check(label)
            target = root / self.folder / label / name.removeprefix(f"{PENDING}/")
            if target.exists():
                self._refuse(name, "its name is in the archive already")
                continue
            target.parent.mkdir(parents=True, exist_ok=True)
            (root / name).rename(target)
            self.num_images += 1
        self.pending, self.label = [], None

    def _check(self, label: str) -> None:
        where = f"{self.unpacking.archive}: '{self.key.strip('/')}.cls'"
        if _is_structured(label):
            raise DataError(
                f"{where}: holds {label[:60]!a}; expected the class's name or number as plain text, such as "
                "cat or 0, without JSON around it"
            )
        if any(char in label for char in "/\0") or is_junk(label) or not 0 < len(os.fsencode(label)) < 256:
            raise DataError(f"{where}: the class {label[:60]!a} cannot be the name of a folder")

    def _refuse(self, name: str, reason: str) -> None:
        (self.unpacking.folder / name).unlink()
        path = ascii(name.removeprefix(f"{PENDING}/"))[1:-1]
        self.unpacking.refused.append(BadImage(path=path, reason=reason))


def _is_structured(label: str) -> bool:
    """Whether it is JSON, or a Python dictionary, and no plain word or number."""
    if label.startswith("{"):
        return True
    try:
        return isinstance(json.loads(label), list | str)
    except (ValueError, RecursionError):
        return False
