"""Images of more than 8 bits: scaled by what the set holds, the same in every image and at every time."""

import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import ExifTags, Image
from tests.unit.data.files import png, tiff

from temper.data import ImageView, ShardSet, load_images, read_image, write_shards
from temper.data.encode import encode
from temper.errors import DataError, ShardError
from temper.records import Depth

SHAPE = (6, 9)


def values(high: int, *shape: int, seed: int = 0) -> np.ndarray:
    """Random values of which the largest is ``high``."""
    found = np.random.default_rng(seed).integers(0, high + 1, shape).astype(np.uint16)
    found.flat[0] = high
    return found


def decoded(content: bytes, tmp_path: Path, depth: Depth) -> np.ndarray:
    path = tmp_path / "image"
    path.write_bytes(content)
    return np.asarray(Image.open(io.BytesIO(encode(path, None, lambda _: depth).content)))


def grey_set(folder: Path, high: int, count: int = 20) -> Path:
    """Two classes of 16-bit files; one image alone reaches ``high``, the others half of it."""
    for place, name in enumerate(("a", "b")):
        (folder / name).mkdir(parents=True)
        for index in range(count):
            seed = 100 * place + index
            pixels = values(high if seed == 7 else high // 2, *SHAPE, seed=seed)
            Image.fromarray(pixels).save(folder / name / f"{index}.png")
    return folder


@pytest.mark.parametrize(
    ("high", "bits"), [(255, 8), (256, 10), (1023, 10), (1024, 12), (4095, 12), (4096, 14), (16384, 16)]
)
def test_the_largest_value_of_the_whole_set_says_how_many_bits(tmp_path: Path, high: int, bits: int) -> None:
    source = grey_set(tmp_path / "src", high)
    manifest = write_shards(source, tmp_path / "out")
    assert manifest.depth == Depth(bits=bits, largest=high)
    shards = ShardSet.open(tmp_path / "out")
    assert shards.manifest.depth == manifest.depth
    images = load_images(shards, "train", ImageView(9, "stretch"))
    names = [name for group in shards.row_groups for name in paths(shards, group.start)]
    files = [source / names[row] for row in images.rows]
    for file, pixels in zip(files, images.images, strict=True):
        scaled = np.round(np.asarray(Image.open(file)) / ((2**bits - 1) / 255)).astype(np.uint8)
        expected = Image.fromarray(scaled).resize((9, 9), Image.Resampling.BILINEAR)
        np.testing.assert_array_equal(pixels[0], np.asarray(expected))
        again = read_image(file, ImageView(9, "stretch"), manifest.long_side[1], manifest.depth)
        np.testing.assert_array_equal(again, pixels)


def paths(shards: ShardSet, start: int) -> list[str]:
    group = next(one for one in shards.row_groups if one.start == start)
    found: list[str] = shards.read(group)["image"].combine_chunks().field("path").to_pylist()
    return found


def test_a_depth_or_a_window_that_is_given_is_used_and_kept(tmp_path: Path) -> None:
    source = grey_set(tmp_path / "src", 4095)
    for name, depth, low, high in (
        ("bits", Depth(bits=14), 0, 16383),
        ("window", Depth(window=(1000, 3000)), 1000, 3000),
    ):
        assert write_shards(source, tmp_path / name, depth=depth).depth == depth
        shards = ShardSet.open(tmp_path / name)
        row = shards.read(shards.row_groups[0])["image"][0].as_py()
        stored = np.asarray(Image.open(source / row["path"])).astype(float)
        expected = np.round((stored.clip(low, high) - low) * 255 / (high - low))
        found = np.asarray(Image.open(io.BytesIO(row["bytes"])))
        assert np.abs(found - expected).max() <= 1, "half values may round either way"
        assert (found == expected).mean() > 0.9


def test_sets_of_8_bits_have_no_depth_and_older_manifests_say_nothing(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / "src" / name).mkdir(parents=True)
        for index in range(8):
            pixels = values(255, *SHAPE, seed=index).astype(np.uint8)
            Image.fromarray(pixels).save(tmp_path / "src" / name / f"{index}{name}.png")
    assert write_shards(tmp_path / "src", tmp_path / "out").depth is None
    file = tmp_path / "out/manifest.json"
    document = json.loads(file.read_text())
    del document["depth"]
    file.write_text(json.dumps(document))
    assert ShardSet.open(tmp_path / "out").manifest.depth is None
    document["depth"] = {"bits": None, "window": [3, 3], "largest": None}
    file.write_text(json.dumps(document))
    with pytest.raises(ShardError, match=r"not a manifest \('depth'.*'window' is 3 3; expected two numbers"):
        ShardSet.open(tmp_path / "out")


def test_unknown_depth_reads_a_file_as_before(tmp_path: Path) -> None:
    Image.fromarray(np.array([[0, 257, 25700, 65535]], np.uint16)).save(tmp_path / "a.png")
    assert read_image(tmp_path / "a.png", ImageView(4, "stretch"), None)[0, 0].tolist() == [0, 1, 100, 255]


TWELVE = Depth(bits=12)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("compression", [1, 8])
@pytest.mark.parametrize(("photometric", "bands"), [(1, 1), (2, 3), (5, 4)], ids=["grey", "rgb", "cmyk"])
def test_every_bit_of_a_tiff_counts(
    tmp_path: Path, order: str, compression: int, photometric: int, bands: int
) -> None:
    stored = values(4095, *SHAPE, bands)
    expected = np.round(stored / (4095 / 255)).astype(np.uint8)
    found = decoded(tiff(stored, photometric, order, compression), tmp_path, TWELVE)
    if bands == 1:
        np.testing.assert_array_equal(found, expected[..., 0])
    elif bands == 3:
        np.testing.assert_array_equal(found, expected)
    else:
        cmyk = Image.frombytes("CMYK", SHAPE[::-1], expected.tobytes())
        np.testing.assert_array_equal(found, np.asarray(cmyk.convert("RGB")))


def test_every_bit_of_a_png_and_a_ppm_counts(tmp_path: Path) -> None:
    stored = values(4095, *SHAPE, 3)
    expected = np.round(stored / (4095 / 255)).astype(np.uint8)
    np.testing.assert_array_equal(decoded(png(stored, 2), tmp_path, TWELVE), expected)
    ppm = b"P6 9 6 65535\n" + stored.astype(">u2").tobytes()
    np.testing.assert_array_equal(decoded(ppm, tmp_path, TWELVE), expected)
    own = b"P6 9 6 4095\n" + stored.astype(">u2").tobytes()  # says its depth by itself
    assert np.abs(decoded(own, tmp_path, Depth(bits=16)).astype(int) - expected).max() <= 1


def test_transparency_of_16_bits_is_laid_on_white(tmp_path: Path) -> None:
    alpha = np.array([[0, 65535, 32896]], np.uint16)
    colours = np.dstack([np.full((1, 3), level, np.uint16) for level in (4095, 0, 2048)])
    half = 128 / 255
    rgb = [[255, 255, 255], [255, 0, 128], [255, round(255 * (1 - half)), round(128 * half + 127)]]
    found = decoded(png(np.dstack([colours, alpha]), 6), tmp_path, TWELVE)
    assert np.abs(found[0].astype(int) - rgb).max() <= 1
    grey = decoded(png(np.dstack([colours[..., 2], alpha]), 4), tmp_path, TWELVE)
    assert np.abs(grey[0].astype(int) - [255, 128, round(128 * half + 127)]).max() <= 1


def test_the_smallest_value_is_white_where_a_tiff_says_so(tmp_path: Path) -> None:
    stored = values(4095, *SHAPE, 1)
    found = decoded(tiff(stored, 0), tmp_path, TWELVE)
    np.testing.assert_array_equal(found, 255 - np.round(stored[..., 0] / (4095 / 255)).astype(np.uint8))


def test_rotation_of_16_bit_images_is_applied(tmp_path: Path) -> None:
    tags = Image.Exif()
    tags[ExifTags.Base.Orientation] = 6
    stored = values(4095, *SHAPE)
    for name in ("a.png", "a.tif"):
        Image.fromarray(stored).save(tmp_path / name, exif=tags)
        found = decoded((tmp_path / name).read_bytes(), tmp_path, TWELVE)
        np.testing.assert_array_equal(found, np.round(stored.T[:, ::-1] / (4095 / 255)).astype(np.uint8))


def test_a_window_gives_32_bit_and_negative_values_their_range(tmp_path: Path) -> None:
    window = Depth(window=(-1000.0, 1000.0))
    for dtype in (np.int32, np.float32):
        buffer = io.BytesIO()
        Image.fromarray(np.array([[-2000, -1000, 0, 1000, 3000]], dtype)).save(buffer, "TIFF")
        assert decoded(buffer.getvalue(), tmp_path, window)[0].tolist() == [0, 0, 128, 255, 255]
    with pytest.raises(ValueError, match=r"pixels, whose range is unknown; .* --window LOW HIGH"):
        decoded(buffer.getvalue(), tmp_path, TWELVE)
    Image.fromarray(np.array([[np.nan, 1.0]], np.float32)).save(buffer := io.BytesIO(), "TIFF")
    with pytest.raises(ValueError, match="pixels that are not numbers"):
        decoded(buffer.getvalue(), tmp_path, window)


def test_multiplied_transparency_of_16_bits_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="16-bit pixels multiplied by their transparency"):
        decoded(tiff(values(4095, *SHAPE, 4), 2, extra=1), tmp_path, TWELVE)


def test_files_that_are_damaged_do_not_count(tmp_path: Path) -> None:
    source = grey_set(tmp_path / "src", 4095)
    content = png(values(65535, 64, 64, 1), 0)
    (source / "a/cut.png").write_bytes(content[: len(content) // 2])
    manifest = write_shards(source, tmp_path / "out", max_bad_frac=0.1)
    assert manifest.depth == Depth(bits=12, largest=4095)
    assert [bad.path for bad in manifest.skipped] == ["a/cut.png"]


def test_values_beyond_the_bits_that_are_given_are_named(tmp_path: Path) -> None:
    source = grey_set(tmp_path / "src", 4095)
    manifest = write_shards(source, tmp_path / "out", depth=Depth(bits=11))
    assert [(one.path, one.reason) for one in manifest.partly] == [
        ("a/7.png", "values above 2047, up to 4095, are white")
    ]
    assert not write_shards(source, tmp_path / "window", depth=Depth(window=(0, 100))).partly


@pytest.mark.parametrize(
    ("depth", "name"), [(Depth(bits=12), "--bit-depth"), (Depth(window=(0, 9)), "--window")]
)
def test_a_depth_for_a_set_of_8_bits_is_refused(tmp_path: Path, depth: Depth, name: str) -> None:
    for label in ("a", "b"):
        (tmp_path / "src" / label).mkdir(parents=True)
        for index in range(6):
            Image.new("L", SHAPE, index).save(tmp_path / "src" / label / f"{index}.png")
    with pytest.raises(DataError, match=f"{name}: has no effect: no image of this set"):
        write_shards(tmp_path / "src", tmp_path / "out", depth=depth)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("high", "is_said"), [(65535, True), (16383, False)])
def test_files_that_one_bright_file_makes_black_are_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, high: int, is_said: bool
) -> None:
    source = grey_set(tmp_path / "src", 4095)
    Image.fromarray(values(high, *SHAPE)).save(source / "b/bright.png")
    write_shards(source, tmp_path / "out")
    says = "40 of 41 images of more than 8 bits stay within 12 bits, but bright.png needs 16"
    assert (says in caplog.text) == is_said
