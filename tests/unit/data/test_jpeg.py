"""JPEGs are decoded past Pillow, and nobody can tell but by the clock."""

import io
from typing import Any

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_sample_images

from temper.data import ImageView
from temper.data.jpeg import decode_jpeg

PHOTO = Image.fromarray(load_sample_images().images[0])


def encoded(image: Image.Image, **settings: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", **settings)
    return buffer.getvalue()


def by_pillow(content: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(content)) as image:
        return np.asarray(image)


def allowed(_width: int, _height: int) -> None:
    pass


@pytest.mark.parametrize("settings", [{}, {"progressive": True}, {"optimize": True}], ids=str)
@pytest.mark.parametrize("subsampling", ["4:4:4", "4:2:2", "4:2:0"])
@pytest.mark.parametrize("size", [(1, 1), (8, 8), (31, 17), (32, 32), (225, 223)])
@pytest.mark.parametrize("quality", [5, 75, 100])
def test_every_bit_is_pillow_s(
    size: tuple[int, int], subsampling: str, quality: int, settings: dict[str, Any]
) -> None:
    photo = PHOTO.resize(size)
    content = encoded(photo, quality=quality, subsampling=subsampling, **settings)
    decoded = decode_jpeg(content, allowed)
    assert decoded is not None
    np.testing.assert_array_equal(decoded, by_pillow(content))
    grey = encoded(photo.convert("L"), quality=quality, **settings)
    decoded = decode_jpeg(grey, allowed)
    assert decoded is not None
    np.testing.assert_array_equal(decoded, by_pillow(grey))


@pytest.mark.parametrize("name", ["chest_xray", "cifar10", "magnetic_tile", "sign_digits"])
def test_every_bit_of_real_images_is_pillow_s(real_images: Any, name: str) -> None:
    files = [
        path for path in sorted(real_images(name).rglob("*")) if path.suffix.lower() in (".jpg", ".jpeg")
    ]
    assert files
    for path in files[::20]:
        content = path.read_bytes()
        decoded = decode_jpeg(content, allowed)
        assert decoded is not None, path
        np.testing.assert_array_equal(decoded, by_pillow(content), err_msg=str(path))


@pytest.mark.parametrize("fit", ["pad", "crop", "stretch"])
@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_another_size_is_made_as_pillow_makes_it(fit: Any, mode: str) -> None:
    photo = PHOTO.resize((50, 30)).convert(mode)
    content = encoded(photo)
    lossless = io.BytesIO()
    with Image.open(io.BytesIO(content)) as image:
        image.save(lossless, "PNG")
    view = ImageView(32, fit)
    np.testing.assert_array_equal(view.decode(content), view.decode(lossless.getvalue()))


@pytest.mark.parametrize("mode", ["CMYK", "RGB"])
def test_rare_colours_are_left_to_pillow(mode: str) -> None:
    content = encoded(PHOTO.resize((16, 16)).convert(mode), **({"keep_rgb": True} if mode == "RGB" else {}))
    assert decode_jpeg(content, allowed) is None
    with Image.open(io.BytesIO(content)) as image:
        expected = np.asarray(image.convert("RGB")).transpose(2, 0, 1)
    np.testing.assert_array_equal(ImageView(16).decode(content), expected)


@pytest.mark.parametrize("what", ["empty", "png", "header", "truncated"])
def test_what_is_damaged_or_no_jpeg_is_left_to_pillow(what: str) -> None:
    content = encoded(PHOTO.resize((64, 64)))
    png = io.BytesIO()
    PHOTO.resize((8, 8)).save(png, "PNG")
    given = {"empty": b"", "png": png.getvalue(), "header": content[:40], "truncated": content[:-400]}[what]
    assert decode_jpeg(given, allowed) is None


def test_nothing_is_decoded_before_its_size_is_allowed() -> None:
    content = bytearray(encoded(PHOTO.resize((8, 8))))
    place = content.index(b"\xff\xc0") + 5
    content[place : place + 4] = b"\xff\xdc\xff\xdc"  # 65,500 x 65,500 pixels, 12 GB
    with pytest.raises(ValueError, match="65500 x 65500 pixels, more than the limit"):
        ImageView(8).decode(bytes(content))
    with pytest.raises(ValueError, match=r"8 x 8 pixels, the manifest says a long side of 16\.\.32"):
        ImageView(8).decode(encoded(PHOTO.resize((8, 8))), (16, 32))
