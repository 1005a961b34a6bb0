"""Image files of every kind, on their way into a shard."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import ExifTags, Image

from temper.data.encode import encode


def decoded(path: Path, size: int | None = None) -> Image.Image:
    image = Image.open(io.BytesIO(encode(path, size).content))
    image.load()
    return image


def noise(*shape: int, high: int = 256, dtype: type = np.uint8) -> np.ndarray:
    return np.random.default_rng(0).integers(0, high, shape).astype(dtype)


def exif(orientation: int) -> Image.Exif:
    tags = Image.Exif()
    tags[ExifTags.Base.Orientation] = orientation
    return tags


@pytest.mark.parametrize("name", ["a.png", "a.jpg"])
@pytest.mark.parametrize("shape", [(9, 12), (9, 12, 3)], ids=["grey", "rgb"])
def test_a_plain_file_is_kept_byte_for_byte(tmp_path: Path, name: str, shape: tuple[int, ...]) -> None:
    path = tmp_path / name
    Image.fromarray(noise(*shape)).save(path)
    kept = encode(path, 12)
    assert kept.content == path.read_bytes()
    assert (kept.is_grey, kept.long_side) == (len(shape) == 2, 12)


@pytest.mark.parametrize("orientation", range(2, 9))
def test_exif_rotation_is_applied_and_gone(tmp_path: Path, orientation: int) -> None:
    path = tmp_path / "a.png"
    pixels = noise(4, 6, 3)
    Image.fromarray(pixels).save(path, exif=exif(orientation))
    # EXIF 2.32, table 6: where row 0 and column 0 of the stored picture belong.
    transposed = pixels.transpose(1, 0, 2)
    upright = {
        2: pixels[:, ::-1],
        3: pixels[::-1, ::-1],
        4: pixels[::-1],
        5: transposed,
        6: transposed[:, ::-1],
        7: transposed[::-1, ::-1],
        8: transposed[::-1],
    }
    image = decoded(path)
    np.testing.assert_array_equal(np.asarray(image), upright[orientation])
    assert image.getexif().get(ExifTags.Base.Orientation, 1) == 1


def test_exif_that_says_upright_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    Image.fromarray(noise(4, 6, 3)).save(path, exif=exif(1))
    assert encode(path, None).content == path.read_bytes()


def test_transparency_is_laid_on_white(tmp_path: Path) -> None:
    pixels = np.zeros((1, 3, 4), np.uint8)
    pixels[0] = [[200, 10, 30, 0], [200, 10, 30, 255], [200, 10, 30, 51]]
    Image.fromarray(pixels, "RGBA").save(tmp_path / "a.png")
    image = decoded(tmp_path / "a.png")
    assert image.mode == "RGB"
    # 51/255 of the colour on 204/255 of white
    assert np.asarray(image)[0].tolist() == [[255, 255, 255], [200, 10, 30], [244, 206, 210]]


def test_grey_with_transparency_stays_grey(tmp_path: Path) -> None:
    pixels = np.array([[[40, 0], [40, 255]]], np.uint8)
    Image.fromarray(pixels, "LA").save(tmp_path / "a.png")
    kept = encode(tmp_path / "a.png", None)
    assert kept.is_grey
    assert np.asarray(Image.open(io.BytesIO(kept.content))).tolist() == [[255, 40]]


def test_a_palette_and_its_transparent_colour_are_resolved(tmp_path: Path) -> None:
    image = Image.fromarray(np.array([[0, 1, 2]], np.uint8), "P")
    image.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255])
    image.save(tmp_path / "plain.png")
    image.save(tmp_path / "clear.png", transparency=1)
    assert np.asarray(decoded(tmp_path / "plain.png"))[0].tolist() == [[255, 0, 0], [0, 255, 0], [0, 0, 255]]
    assert np.asarray(decoded(tmp_path / "clear.png"))[0].tolist() == [
        [255, 0, 0],
        [255, 255, 255],
        [0, 0, 255],
    ]


def test_16_bit_grey_is_scaled_the_same_in_every_image(tmp_path: Path) -> None:
    values = np.array([[0, 257, 25700, 65535]], np.uint16)
    Image.fromarray(values).save(tmp_path / "bright.png")
    Image.fromarray(np.array([[0, 128, 129, 255]], np.uint16)).save(tmp_path / "dark.png")
    assert np.asarray(decoded(tmp_path / "bright.png")).tolist() == [[0, 1, 100, 255]]
    assert np.asarray(decoded(tmp_path / "dark.png")).tolist() == [[0, 0, 1, 1]]


def test_cmyk_becomes_rgb(tmp_path: Path) -> None:
    pixels = np.zeros((16, 16, 4), np.uint8)
    pixels[..., 1:3] = 255  # no cyan, full magenta and yellow: red
    Image.fromarray(pixels, "CMYK").save(tmp_path / "a.jpg", quality=100)
    image = decoded(tmp_path / "a.jpg")
    assert (image.format, image.mode) == ("PNG", "RGB")
    np.testing.assert_allclose(np.asarray(image)[8, 8], [255, 0, 0], atol=3)


@pytest.mark.parametrize("name", ["a.bmp", "a.tif", "a.gif", "a.webp", "a.ppm"])
def test_other_formats_become_png_without_loss(tmp_path: Path, name: str) -> None:
    Image.fromarray(noise(8, 8)).save(tmp_path / name, **({"lossless": True} if name == "a.webp" else {}))
    image = decoded(tmp_path / name)
    assert image.format == "PNG"
    np.testing.assert_array_equal(np.asarray(image.convert("L")), noise(8, 8))


def test_black_and_white_becomes_grey(tmp_path: Path) -> None:
    Image.fromarray(np.array([[True, False]])).save(tmp_path / "a.png")
    assert np.asarray(decoded(tmp_path / "a.png")).tolist() == [[255, 0]]


@pytest.mark.parametrize(
    ("shape", "expected"), [((50, 100), (20, 10)), ((100, 50), (10, 20)), ((9, 9), (9, 9))]
)
def test_size_bounds_the_long_side_and_never_enlarges(
    tmp_path: Path, shape: tuple[int, int], expected: tuple[int, int]
) -> None:
    Image.fromarray(noise(*shape)).save(tmp_path / "a.png")
    kept = encode(tmp_path / "a.png", 20)
    assert Image.open(io.BytesIO(kept.content)).size == expected
    assert kept.long_side == max(expected)


def test_the_same_file_gives_the_same_bytes(tmp_path: Path) -> None:
    Image.fromarray(noise(30, 30, 4), "RGBA").save(tmp_path / "a.png")
    assert encode(tmp_path / "a.png", 16) == encode(tmp_path / "a.png", 16)


def jpeg() -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(noise(64, 64, 3)).save(buffer, "JPEG")
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "empty file"),
        (b"this is no picture", "not an image of a known format"),
        (jpeg()[:600], r"cannot be decoded \(.*[Tt]runcated"),
        (b"%PDF-1.7\n", "not an image of a known format"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "not an image of a known format"),
    ],
    ids=["empty", "text", "truncated", "pdf", "svg"],
)
def test_what_is_no_image_is_refused_with_its_reason(tmp_path: Path, content: bytes, reason: str) -> None:
    (tmp_path / "a.jpg").write_bytes(content)
    with pytest.raises(ValueError, match=reason):
        encode(tmp_path / "a.jpg", None)


def test_a_decompression_bomb_is_refused_unread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.new("L", (40, 40)).save(tmp_path / "a.png")
    for limit in (1500, 700):  # Pillow warns above its limit, and raises above twice its limit
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
        with pytest.raises(ValueError, match=f"more pixels than the limit of {limit}"):
            encode(tmp_path / "a.png", None)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1600)
    assert encode(tmp_path / "a.png", None).long_side == 40


def test_pixels_of_unknown_range_are_refused(tmp_path: Path) -> None:
    Image.fromarray(np.full((4, 4), 0.5, np.float32)).save(tmp_path / "float.tif")
    Image.fromarray(np.full((4, 4), 70_000, np.int32)).save(tmp_path / "int.tif")
    for name in ("float.tif", "int.tif"):
        with pytest.raises(ValueError, match="32-bit pixels, whose range is unknown"):
            encode(tmp_path / name, None)


def test_links_and_special_files_have_their_own_reasons(tmp_path: Path) -> None:
    (tmp_path / "gone.png").symlink_to(tmp_path / "nowhere.png")
    with pytest.raises(ValueError, match="broken link"):
        encode(tmp_path / "gone.png", None)
    with pytest.raises(ValueError, match="not a regular file"):
        encode(tmp_path, None)


def test_a_lab_image_gives_the_same_bytes_at_any_time(tmp_path: Path) -> None:
    """Pillow makes a profile of its own for these, with the time in it, and PNG would keep it."""
    Image.fromarray(noise(6, 6, 3)).convert("LAB").save(tmp_path / "a.tif")
    image = decoded(tmp_path / "a.tif")
    assert image.mode == "RGB"
    assert "icc_profile" not in image.info
