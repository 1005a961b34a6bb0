"""The table of docs/how-to/own-data.md: every kind of file is written, read, and compared with the page."""

import io
import re
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import ExifTags, Image
from tests.unit.data.files import dicom, png, tiff

from temper.data import Manifest, ShardSet, write_shards
from temper.errors import DataError

PAGE = Path(__file__).parents[3] / "docs/how-to/own-data.md"
SIZE = (16, 12)
GREY = np.random.default_rng(0).integers(30, 200, SIZE[::-1]).astype(np.uint8)
GREY[:4, :4] = 0
DEEP = GREY.astype(np.uint16) * 20
"""Of 12 bits."""
TURNED = Image.Exif()
TURNED[ExifTags.Base.Orientation] = 6


def picture(mode: str) -> Image.Image:
    """Black in a corner, which is transparent where the mode has transparency."""
    image = Image.fromarray(GREY).convert("RGB").convert(mode.removesuffix("A"))
    if mode.endswith("A"):
        alpha = np.full(GREY.shape, 255, np.uint8)
        alpha[:4, :4] = 0
        image.putalpha(Image.fromarray(alpha))
    return image


def saved(image: Image.Image, kind: str, **settings: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **settings)
    return buffer.getvalue()


def several(kind: str, **settings: object) -> bytes:
    others = [Image.new("RGB", SIZE, name) for name in ("red", "blue")]
    return saved(picture("RGB"), kind, save_all=True, append_images=others, **settings)


def palette(**settings: object) -> bytes:
    return saved(picture("RGB").quantize(64), "PNG", **settings)


def bands(count: int, dtype: type = np.uint8) -> np.ndarray:
    return np.dstack([DEEP if dtype is np.uint16 else GREY] * count)


def heic() -> bytes:
    heif = pytest.importorskip("pillow_heif", reason="needs temper[heic]")
    heif.register_heif_opener()
    return saved(picture("RGB"), "HEIF")


def dicom_of(folder: Path, **elements: object) -> bytes:
    return dicom(folder / "written.dcm", DEEP, **elements).read_bytes()


FILES: dict[str, Callable[[Path], bytes]] = {
    "JPEG, grey or RGB": lambda _: saved(picture("RGB"), "JPEG"),
    "JPEG, CMYK": lambda _: saved(picture("CMYK"), "JPEG"),
    "JPEG or PNG with an EXIF rotation": lambda _: saved(picture("RGB"), "JPEG", exif=TURNED),
    "MPO, several pictures": lambda _: several("MPO"),
    "PNG, grey or RGB": lambda _: saved(picture("L"), "PNG"),
    "PNG, palette": lambda _: palette(),
    "PNG, palette with a transparent colour": lambda _: palette(transparency=darkest()),
    "PNG, RGBA": lambda _: saved(picture("RGBA"), "PNG"),
    "PNG, grey with alpha": lambda _: saved(picture("LA"), "PNG"),
    "PNG, black and white": lambda _: saved(picture("1"), "PNG"),
    "PNG, animated": lambda _: several("PNG"),
    "PNG, 16-bit grey": lambda _: saved(Image.fromarray(DEEP), "PNG"),
    "PNG, 16-bit RGB": lambda _: png(bands(3, np.uint16), 2),
    "TIFF, grey or RGB": lambda _: saved(picture("RGB"), "TIFF"),
    "TIFF, several pages": lambda _: several("TIFF"),
    "TIFF, RGBA": lambda _: saved(picture("RGBA"), "TIFF"),
    "TIFF, CMYK": lambda _: saved(picture("CMYK"), "TIFF"),
    "TIFF, RGB and a fourth band": lambda _: tiff(bands(4), 2, extra=0),
    "TIFF, four bands that are not RGB": lambda _: tiff(bands(4), 1),
    "TIFF, 16-bit grey": lambda _: saved(Image.fromarray(DEEP), "TIFF"),
    "TIFF, 16-bit RGB": lambda _: tiff(bands(3, np.uint16), 2),
    "TIFF, 32-bit": lambda _: saved(Image.fromarray(GREY.astype(np.float32)), "TIFF"),
    "GIF": lambda _: saved(picture("RGB"), "GIF"),
    "GIF, animated": lambda _: several("GIF"),
    "WebP": lambda _: saved(picture("RGB"), "WEBP"),
    "WebP, animated": lambda _: several("WEBP"),
    "AVIF": lambda _: saved(picture("RGB"), "AVIF"),
    "BMP": lambda _: saved(picture("RGB"), "BMP"),
    "PPM, PGM": lambda _: saved(picture("RGB"), "PPM"),
    "PPM, PGM, 16-bit": lambda _: b"P5 16 12 65535\n" + DEEP.astype(">u2").tobytes(),
    "HEIC, with `temper[heic]`": lambda _: heic(),
    "DICOM, with `temper[medical]`": dicom_of,
    "DICOM, several frames": lambda folder: dicom(
        folder / "x.dcm", np.stack([DEEP, DEEP]), NumberOfFrames=2
    ).read_bytes(),
    "JPEG 2000": lambda _: saved(picture("RGB"), "JPEG2000"),
    "JPEG XL": lambda _: b"\xff\x0a" + bytes(40),
    "SVG": lambda _: b"<svg xmlns='http://www.w3.org/2000/svg'/>",
    "PDF": lambda _: b"%PDF-1.7\n",
    "Photoshop": lambda _: b"8BPS\0\1" + bytes(40),
    "a Git LFS pointer": lambda _: b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n",
    "a file cut short": lambda _: saved(picture("RGB"), "BMP")[:300],
    "an empty file": lambda _: b"",
}


def darkest() -> int:
    """The entry of the palette that is in the corner."""
    return int(np.asarray(picture("RGB").quantize(64))[0, 0])


def class_folders(folder: Path, name: str, content: bytes) -> Path:
    """Two classes of plain images, one of which holds the file too."""
    for place, label in enumerate(("a", "b")):
        (folder / label).mkdir(parents=True)
        for index in range(6):
            (folder / label / f"{index}.png").write_bytes(
                saved(Image.new("L", SIZE, 40 * place + index), "PNG")
            )
    (folder / "a" / name).write_bytes(content)
    return folder


def outcome(source: Path, name: str, folder: Path) -> str:
    """What becomes of a file, in the words of the page; measured."""
    manifest = write_shards(source, folder / "out", max_bad_frac=0.5)
    content = (source / "a" / name).read_bytes()
    if manifest.skipped:
        return f"skipped: {manifest.skipped[0].reason.partition(';')[0].partition(' (')[0]}"
    found = stored(folder / "out", f"a/{name}")
    mode = "RGB" if image_of(found).mode == "RGB" else "grey"
    first = "kept byte for byte" if found == content else mode
    return ", ".join([first, *_remarks(manifest, image_of(found))])


def _remarks(manifest: Manifest, image: Image.Image) -> list[str]:
    remarks = ["upright"] if image.size == SIZE[::-1] else []
    if np.asarray(image.convert("L"))[0, 0] == 255:
        remarks.append("transparency laid on white")
    remarks += [f"scaled by the set's {manifest.depth.bits} bits"] if manifest.depth is not None else []
    remarks += ["with patient and study"] if manifest.origins else []
    return [*remarks, *(one.reason for one in manifest.partly)]


def image_of(content: bytes) -> Image.Image:
    return Image.open(io.BytesIO(content))


def stored(path: Path, name: str) -> bytes:
    shards = ShardSet.open(path)
    rows = [row["image"] for group in shards.row_groups for row in shards.read(group).to_pylist()]
    return next(row["bytes"] for row in rows if row["path"] == name)


def archive(folder: Path, kind: str) -> Path:
    source, path = (
        class_folders(folder / "a", "more.png", saved(picture("L"), "PNG")),
        folder / f"photos.{kind}",
    )
    files = [(file, file.relative_to(source).as_posix()) for file in sorted(source.rglob("*.png"))]
    if kind == "zip":
        with zipfile.ZipFile(path, "w") as zipped:
            for file, name in files:
                zipped.write(file, name)
    else:
        with tarfile.open(path, "w:gz" if kind == "tar.gz" else "w") as tar:
            for file, name in files:
                tar.add(file, name if kind == "tar.gz" else name.replace("/", "-"))
                if kind == "tar":
                    info = tarfile.TarInfo(name.replace("/", "-").replace(".png", ".cls"))
                    info.size = 1
                    tar.addfile(info, io.BytesIO(name[:1].encode()))
    return path


def hub(folder: Path) -> Path:
    images = [
        {"bytes": saved(Image.new("L", SIZE, 40 * (row % 2) + row), "PNG"), "path": f"{row}.png"}
        for row in range(13)
    ]
    (folder / "set/data").mkdir(parents=True)
    columns = {"image": images, "label": ["ab"[row % 2] for row in range(13)]}
    pq.write_table(pa.table(columns), folder / "set/data/train-00000-of-00001.parquet")
    return folder / "set"


def rar(folder: Path) -> Path:
    (folder / "photos.rar").write_bytes(b"Rar!\x1a\x07\0")
    return folder / "photos.rar"


SOURCES: dict[str, Callable[[Path], Path]] = {
    "class folders": lambda folder: class_folders(folder / "a", "more.png", saved(picture("L"), "PNG")),
    "zip of class folders": lambda folder: archive(folder, "zip"),
    "tar, tar.gz, tar.bz2 or tar.xz of class folders": lambda folder: archive(folder, "tar.gz"),
    "WebDataset tars, `KEY.png` and `KEY.cls`": lambda folder: archive(folder, "tar"),
    "Hugging Face Parquet, `train-*.parquet`": hub,
    "rar, 7z": rar,
}


def source_outcome(source: Path, folder: Path) -> str:
    try:
        manifest = write_shards(source, folder / "out")
    except DataError as problem:
        return f"refused: {str(problem).partition(': ')[2].partition(';')[0]}"
    assert manifest.files.startswith("files seen: 13 = 13 images")
    return "read"


def rows_of_page() -> dict[str, str]:
    text = (
        PAGE.read_text(encoding="utf-8").partition("| file | becomes |\n|---|---|\n")[2].partition("\n\n")[0]
    )
    return dict(re.findall(r"^\| (.+?) \| (.+?) \|$", text, re.MULTILINE))


def test_the_page_has_a_row_for_every_kind() -> None:
    assert list(rows_of_page()) == [*SOURCES, *FILES]


@pytest.mark.parametrize("name", FILES)
def test_a_file_becomes_what_the_page_says(tmp_path: Path, name: str) -> None:
    source = class_folders(tmp_path / "src", "file", FILES[name](tmp_path))
    assert outcome(source, "file", tmp_path) == rows_of_page()[name]


@pytest.mark.parametrize("name", SOURCES)
def test_a_source_becomes_what_the_page_says(tmp_path: Path, name: str) -> None:
    assert source_outcome(SOURCES[name](tmp_path), tmp_path) == rows_of_page()[name]
