"""``manifest.json``: what a folder of shards holds."""

from collections.abc import Set as AbstractSet
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from temper.records import Depth
from temper.spec import Spec

Split = Literal["train", "val", "test"]
SPLITS: tuple[Split, ...] = ("train", "val", "test")


def _plain_name(name: str) -> str:
    if name in ("", ".", "..") or any(char in name for char in "/\\\0") or len(name.encode()) > 255:
        raise ValueError("expected the name of a file beside the manifest, without a folder")
    return name


class ShardFile(Spec):
    """One Parquet file."""

    file: Annotated[str, AfterValidator(_plain_name)]
    num_rows: int = Field(ge=0, lt=2**40)
    bytes: int = Field(ge=0, lt=2**60)
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")


class BadImage(Spec):
    """A file that was left out."""

    path: str
    """Relative to the source folder."""
    reason: str


class Origin(Spec):
    """Whom an image of a DICOM file shows."""

    path: str
    """Relative to the source folder."""
    patient: str
    study: str


class Copies(Spec):
    """Rows that show the same picture, or nearly the same."""

    rows: list[Annotated[int, Field(ge=0, lt=2**48)]] = Field(min_length=2)
    paths: list[str]
    """Of the same rows, relative to the source folder."""
    classes: list[str] = Field(min_length=1)
    """Each once."""

    def links(self, rows: AbstractSet[int], others: AbstractSet[int]) -> bool:
        """Whether one of the rows is among ``rows`` and one among ``others``."""
        return not rows.isdisjoint(self.rows) and not others.isdisjoint(self.rows)

    def __str__(self) -> str:
        return self.joined(" = ")

    def joined(self, sign: str) -> str:
        """The first paths, with ``sign`` between them."""
        more = len(self.paths) - 4
        return sign.join([*self.paths[:4], *([f"{more} more"] if more > 0 else [])])


class Straddling(Spec):
    """A group of images, such as those of a patient, that lies in several splits."""

    group: str
    counts: dict[Split, int]
    """Its images in each of them."""

    def __str__(self) -> str:
        return f"'{self.group}' ({', '.join(f'{count} in {split}' for split, count in self.counts.items())})"


class Manifest(Spec):
    """Classes, splits and integrity of a set of images.

    ``splits`` lists row numbers, counted over the shards in their order; images are never copied.
    ``fingerprint`` covers the classes, every image's bytes and label, and the splits, so that the same
    images and settings have the same fingerprint on any machine.
    """

    schema_version: Literal[1] = 1
    name: str
    fingerprint: str
    classes: list[str]
    counts: dict[Split, dict[str, int]]
    channels: Literal[1, 3]
    """1 where every image is greyscale."""
    long_side: tuple[int, int]
    """The smallest and the largest long side, in pixels."""
    bytes: int
    seed: int
    shards: list[ShardFile]
    splits: dict[Split, list[Annotated[int, Field(ge=0, lt=2**48)]]]
    skipped: list[BadImage]
    """Files of the classes that cannot be used."""
    refused: list[BadImage] = Field(default_factory=list)
    """Files that lie in no class folder; empty in older manifests."""
    num_notes: int = Field(default=0, ge=0)
    """Notes beside the images, and files that operating systems leave behind."""
    depth: Depth | None = None
    """How images of more than 8 bits were scaled; ``None``: there were none, or by 0..65535, as once all."""
    partly: list[BadImage] = Field(default_factory=list)
    """Images of several pages, frames or bands, and which of them were read."""
    origins: list[Origin] = Field(default_factory=list)
    """Of images whose files name a patient and a study."""

    copies: list[Copies] | None = None
    """``None`` in older manifests: pixels were not compared."""
    near_duplicates: list[Copies] | None = None
    """Rows whose pictures are nearly the same; ``None`` in older manifests."""
    near_are_grouped: bool = False
    """Whether near duplicates belong in one split, as copies do."""
    attributes: list[str] = Field(default_factory=list)
    """Columns of the shards beside the image and its label, such as ``group`` and ``site``."""
    straddling: list[Straddling] = Field(default_factory=list)
    """Groups that these splits cut."""

    @property
    def alike(self) -> list[Copies] | None:
        """Copies, and near duplicates where these are grouped too."""
        if self.copies is None or not self.near_are_grouped:
            return self.copies
        return [*self.copies, *(self.near_duplicates or ())]

    @property
    def across_splits(self) -> list[Copies]:
        """Pictures that are in more than one split."""
        return self._across(self.copies)

    @property
    def near_across_splits(self) -> list[Copies]:
        """Near duplicates that are in more than one split."""
        return self._across(self.near_duplicates)

    def _across(self, copies: list[Copies] | None) -> list[Copies]:
        where = {row: split for split, rows in self.splits.items() for row in rows}
        return [one for one in copies or () if len({where.get(row) for row in one.rows} - {None}) > 1]

    @property
    def files(self) -> str:
        """What became of the files of the source folder, in a line."""
        num_images = sum(shard.num_rows for shard in self.shards)
        num_refused = len(self.refused) + self.num_notes
        notes = f" ({self.num_notes} of them notes or files of the system)" if self.num_notes else ""
        return (
            f"files seen: {num_images + len(self.skipped) + num_refused} = {num_images} images + "
            f"{len(self.skipped)} skipped + {num_refused} refused{notes}"
        )

    @property
    def _lists(self) -> dict[str, list[str]]:
        files = [shard.file for shard in self.shards]
        return {"classes": self.classes, "shards": files, "attributes": self.attributes}

    @model_validator(mode="after")
    def _names_each_once(self) -> Self:
        for what, names in self._lists.items():
            if len(set(names)) < len(names):
                raise ValueError(f"'{what}' has a name twice")
        if not 1 <= self.long_side[0] <= self.long_side[1]:
            raise ValueError(
                f"'long_side' is {list(self.long_side)}; expected [smallest, largest], in pixels"
            )
        return self
