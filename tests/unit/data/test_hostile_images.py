"""Image files and folders that are meant to harm: skipped with a count and a reason, or refused by name."""

import io
import struct
import unicodedata
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from temper.data import ImageView, ShardSet, load_images, write_shards
from temper.data.encode import encode
from temper.data.folders import scan_folders
from temper.errors import DataError, ShardError

SIZE = (12, 12)


def picture(seed: int, mode: str = "RGB") -> Image.Image:
    shape = SIZE if mode == "L" else (*SIZE, 3)
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, shape).astype(np.uint8))


def folders(root: Path, *names: str, count: int = 20) -> Path:
    for number, name in enumerate(names):
        (root / name).mkdir(parents=True)
        for index in range(count):
            picture(100 * number + index).save(root / name / f"{index}.png")
    return root


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(width: int, height: int, *chunks: bytes) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + b"".join(chunks) + chunk(b"IEND", b"")


def text_bomb() -> bytes:
    """A PNG whose compressed comment is 100 MB of zeros."""
    packer = zlib.compressobj(9)
    packed = b"".join(packer.compress(bytes(10**6)) for _ in range(100)) + packer.flush()
    pixels = chunk(b"IDAT", zlib.compress(bytes(13 * 12)))
    return png(12, 12, chunk(b"zTXt", b"c\0\0" + packed), pixels)


def float_tiff(*values: float) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.array([values], np.float32)).save(buffer, "TIFF")
    return buffer.getvalue()


BAD = {
    "huge.png": (png(60_000, 60_000), "more pixels than the limit of 89478485"),
    "wide.png": (png(2**31 - 1, 2), "more pixels than the limit"),
    "none.png": (png(0, 0), "cannot be decoded|not an image"),
    "no pixels.png": (png(12, 12), "cannot be decoded"),
    "comment.png": (text_bomb(), "cannot be decoded|Decompressed"),
    "nan.tif": (float_tiff(float("nan"), 0.5), "32-bit pixels, whose range is unknown"),
    "inf.tif": (float_tiff(float("inf"), 0.0), "32-bit pixels, whose range is unknown"),
    "script.eps": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not an image of a known format"),
    "zip.jpg": (b"PK\x03\x04" + bytes(100), "not an image of a known format"),
    "gzip.png": (b"\x1f\x8b\x08" + bytes(100), "not an image of a known format"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_file_that_is_meant_to_harm_has_its_reason(tmp_path: Path, name: str) -> None:
    content, reason = BAD[name]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=reason):
        encode(tmp_path / name, None)


def test_bad_files_are_skipped_with_a_count_and_nothing_else_is_lost(tmp_path: Path) -> None:
    source = folders(tmp_path / "src", "cat", "dog")
    for name, (content, _) in BAD.items():
        (source / "cat" / name).write_bytes(content)
    manifest = write_shards(source, tmp_path / "out", max_bad_frac=0.5)
    assert {bad.path for bad in manifest.skipped} == {f"cat/{name}" for name in BAD}
    assert sum(sum(counts.values()) for counts in manifest.counts.values()) == 40
    with pytest.raises(ShardError, match=r"\(--max-bad raises the limit\); the first of them:\n  cat/.+: .+"):
        write_shards(source, tmp_path / "again", max_bad_frac=0)


def test_an_animation_is_its_first_picture(tmp_path: Path) -> None:
    frames = [Image.new("L", SIZE, value) for value in (10, 200, 90)]
    for name in ("a.gif", "a.png", "a.webp", "a.tif"):
        settings = {"lossless": True} if name == "a.webp" else {}
        frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:], **settings)
        with Image.open(io.BytesIO(encode(tmp_path / name, None).content)) as image:
            assert np.asarray(image.convert("L")).tolist() == np.full(SIZE, 10).tolist()


def test_a_truncated_copy_of_any_image_is_refused_or_whole(tmp_path: Path) -> None:
    """300 mutations of real files: an image of the right size comes back, or a reason."""
    generator = np.random.default_rng(0)
    originals = []
    for kind in ("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP"):
        buffer = io.BytesIO()
        picture(1).save(buffer, kind)
        originals.append(buffer.getvalue())
    reasons: list[str] = []
    for number in range(300):
        content = bytearray(originals[number % len(originals)])
        place = int(generator.integers(len(content)))
        content[place] ^= int(generator.integers(1, 256))
        (tmp_path / "a").write_bytes(bytes(content) if number % 3 else bytes(content[:place]))
        try:
            kept = encode(tmp_path / "a", 64)
        except ValueError as problem:
            reasons.append(str(problem))
            continue
        assert kept.long_side <= 64
        with Image.open(io.BytesIO(kept.content), formats=("PNG", "JPEG")) as image:
            assert image.mode in ("L", "RGB")
            image.load()
    assert len(reasons) > 60
    assert all(len(reason.splitlines()) == 1 for reason in reasons)


def test_links_out_of_the_folder_are_skipped_and_named(tmp_path: Path) -> None:
    source = folders(tmp_path / "src", "cat", "dog")
    outside = folders(tmp_path / "private", "x", count=1)
    (source / "cat/file.png").symlink_to(outside / "x/0.png")
    (source / "cat/folder").symlink_to(outside / "x")
    (source / "dog/loop").symlink_to(source / "dog")
    manifest = write_shards(source, tmp_path / "out", max_bad_frac=0.5)
    assert {bad.path: bad.reason for bad in manifest.skipped} == {
        "cat/file.png": "a link to outside of the source folder (--follow-links reads it)",
        "cat/folder": "a link to outside of the source folder (--follow-links reads it)",
        "dog/loop": "a link to a folder (--follow-links reads it)",
    }
    (source / "eel").symlink_to(outside / "x")
    with pytest.raises((DataError, ShardError), match=r"eel"):
        write_shards(source, tmp_path / "again", max_bad_frac=0.5)


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("dog\u202egnp", r"dog\\u202egnp"),
        ("dog\ncat", r"dog\\ncat"),
        ("dog\x1b[2J", r"dog\\x1b\[2J"),
        ("dog\u2066", r"dog\\u2066"),
        ("dog\udcff", r"dog\\udcff"),
    ],
)
def test_class_names_that_turn_or_hide_text_are_refused(tmp_path: Path, name: str, shown: str) -> None:
    folders(tmp_path, "cat", name, count=1)
    with pytest.raises(DataError, match=rf"the class '{shown}' has characters .*; rename the folder"):
        scan_folders(tmp_path)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (unicodedata.normalize("NFC", "café"), unicodedata.normalize("NFD", "café")),
        ("cat", "cat\u200b"),
        ("cat", "\uff43at"),
        ("cat", "cat "),
    ],
)
def test_class_names_that_look_alike_are_refused(tmp_path: Path, one: str, other: str) -> None:
    folders(tmp_path, one, other, count=1)
    with pytest.raises(DataError, match=r"the names of the classes '.*' and '.*' look alike; rename or join"):
        scan_folders(tmp_path)


def test_names_of_every_script_and_case_are_kept(tmp_path: Path) -> None:
    names = ["A", "a", "猫", "кот", "می\u200cخواهم", "..cat", "con", "-rf", "$(touch x)", "ü" * 120]
    folders(tmp_path / "src", *(name for name in names if not name.startswith(".")), count=8)
    manifest = write_shards(tmp_path / "src", tmp_path / "out")
    assert manifest.classes == sorted(name for name in names if not name.startswith("."))
    shards = ShardSet.open(tmp_path / "out")
    assert len(load_images(shards, "test", ImageView(8)).labels) > 0
