"""DICOM and HEIC: read with their extras, named without."""

import io
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tests.unit.data.files import dicom

from temper.data import FoldSpec, ImageView, Manifest, ShardSet, read_image, write_shards
from temper.data.encode import encode
from temper.errors import DataError
from temper.records import Depth

STORED = np.array([[0, 100, 1000, 2000, 4095]], np.uint16)


def grey(path: Path, depth: Depth | None = None) -> list[int]:
    kept = encode(path, None, lambda deep: deep.depth(depth) or Depth(bits=16))
    row: list[int] = np.asarray(Image.open(io.BytesIO(kept.content)))[0].tolist()
    return row


def test_values_are_rescaled_and_windowed(tmp_path: Path) -> None:
    plain = dicom(tmp_path / "plain.dcm", STORED)
    assert grey(plain) == [0, 6, 62, 125, 255]  # by BitsStored, 12
    ct = {"RescaleSlope": 1, "RescaleIntercept": -1024}
    window = {"WindowCenter": [0.5, 40], "WindowWidth": [2001, 400]}  # -1000..1000, and another
    found = grey(dicom(tmp_path / "ct.dcm", STORED, **ct, **window))
    assert found == [0, 10, 124, 252, 255]
    steep = {"RescaleSlope": 2, "RescaleIntercept": 0, "WindowCenter": 4000, "WindowWidth": 4000}
    exact = grey(dicom(tmp_path / "e.dcm", STORED, **steep, VOILUTFunction="LINEAR_EXACT"))
    assert exact == [0, 0, 0, 128, 255]


def test_signed_values_and_their_range(tmp_path: Path) -> None:
    pixels = np.array([[-2048, 0, 2047]], np.int16)
    assert grey(dicom(tmp_path / "a.dcm", pixels)) == [0, 128, 255]


def test_monochrome1_is_inverted(tmp_path: Path) -> None:
    path = dicom(tmp_path / "a.dcm", STORED, PhotometricInterpretation="MONOCHROME1")
    assert grey(path) == [255, 249, 193, 130, 0]


def test_a_window_that_is_given_is_for_every_file(tmp_path: Path) -> None:
    path = dicom(
        tmp_path / "a.dcm", STORED, RescaleIntercept=-1024, RescaleSlope=1, WindowCenter=40, WindowWidth=9
    )
    assert grey(path, Depth(window=(-1024, 3071))) == [0, 6, 62, 125, 255]
    assert grey(path, Depth(bits=16)) == grey(path), "the bits of other files are not those of DICOM"


def test_colour_and_several_frames(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (4, 6, 3)).astype(np.uint8)
    kept = encode(dicom(tmp_path / "rgb.dcm", pixels), None)
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(kept.content))), pixels)
    frames = np.stack([np.full((4, 6), level, np.uint16) for level in (0, 4095, 7)])
    kept = encode(dicom(tmp_path / "many.dcm", frames, NumberOfFrames=3), None)
    assert kept.note == "the first of 3 frames"
    assert np.asarray(Image.open(io.BytesIO(kept.content))).max() == 0


def test_patients_and_studies_are_in_the_manifest(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    for name in ("sick", "well"):
        (tmp_path / "src" / name).mkdir(parents=True)
        for index in range(12):
            pixels = generator.integers(0, 4096, (6, 6)).astype(np.uint16)
            dicom(tmp_path / "src" / name / f"{index}.dcm", pixels, PatientID=f"{name}{index // 2}")
    manifest = write_shards(tmp_path / "src", tmp_path / "out")
    assert manifest.depth is None
    assert {one.path: one.patient for one in manifest.origins}["sick/5.dcm"] == "sick2"
    assert {one.study for one in manifest.origins} == {"1.2.840.1"}
    assert len(manifest.origins) == 24
    assert manifest.attributes == ["group"]
    assert manifest.straddling == []
    shards = ShardSet.open(tmp_path / "out")
    patients = {one.patient for one in manifest.origins}
    assert set(shards.column("group")) == patients
    known = np.array(shards.column("group"))
    for index in range(3):
        fold = FoldSpec(index=index, count=3).apply(shards)
        sides = [set(known[fold.manifest.splits[split]]) for split in ("train", "test")]
        assert not set.intersection(*sides), "folds do not cut a patient"
    assert write_shards(tmp_path / "src", tmp_path / "named", group=r"^(\d)").attributes == ["group"]
    assert set(ShardSet.open(tmp_path / "named").column("group")) == set("0123456789")
    again = Manifest.model_validate_json((tmp_path / "out/manifest.json").read_text())
    assert again.origins == manifest.origins
    window = Depth(window=(0, 2000))
    assert write_shards(tmp_path / "src", tmp_path / "window", depth=window).depth == window
    with pytest.raises(DataError, match="--bit-depth: has no effect: no image of this set"):
        write_shards(tmp_path / "src", tmp_path / "bits", depth=Depth(bits=12))
    file = tmp_path / "src/sick/5.dcm"
    assert read_image(file, ImageView(6), 6, manifest.depth).shape == (3, 6, 6)


@pytest.mark.parametrize(
    ("windowed", "depth", "said"),
    [
        ({"sick": 9, "well": 2}, None, "'sick' 9 with and 3 without, 'well' 2 with and 10 without; a model"),
        (
            {"sick": 12, "well": 0},
            None,
            "'sick' 12 with and 0 without, 'well' 0 with and 12 without; a model",
        ),
        ({"sick": 9, "well": 2}, Depth(window=(0, 4095)), None),
        ({"sick": 12, "well": 12}, None, None),
        ({"sick": 0, "well": 0}, None, None),
    ],
)
def test_windows_that_only_some_files_have_are_said(
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    windowed: dict[str, int],
    depth: Depth | None,
    said: str | None,
) -> None:
    generator = np.random.default_rng(0)
    for name, count in windowed.items():
        (tmp_path / "src" / name).mkdir(parents=True)
        for index in range(12):
            pixels = generator.integers(0, 4096, (6, 6)).astype(np.uint16)
            window = {"WindowCenter": 2000, "WindowWidth": 500 + index} if index < count else {}
            dicom(tmp_path / "src" / name / f"{index}.dcm", pixels, PatientID=f"{name}{index}", **window)
    write_shards(tmp_path / "src", tmp_path / "out", depth=depth)
    lines = [record.message for record in caplog.records if "window" in record.message]
    if said is None:
        assert not lines
        return
    (line,) = lines
    assert line.startswith(f"{tmp_path / 'src'}: only some DICOM files have a window, and those without")
    assert said in line
    assert line.endswith("--window LOW HIGH scales all alike")


@pytest.mark.parametrize(
    ("widths", "said"),
    [
        ({"sick": [401] * 12, "well": [1001] * 9 + [801] * 3}, "'sick' -160.5 to 239.5 in 12 of 12, 'well' "),
        ({"sick": [401] * 12, "well": range(1001, 1013)}, "'sick' -160.5 to 239.5 in 12 of 12, 'well' "),
        ({"sick": [401] * 6 + [1001] * 6, "well": [1001] * 12}, None),
        ({"sick": range(401, 413), "well": range(1001, 1013)}, None),
    ],
    ids=["of each class", "of one class", "shared", "of each file"],
)
def test_windows_that_tell_classes_apart_are_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, widths: dict[str, Sequence[int]], said: str | None
) -> None:
    """Files with a window each of their own tell nothing, nor does one that all classes have."""
    generator = np.random.default_rng(0)
    for name, own in widths.items():
        (tmp_path / "src" / name).mkdir(parents=True)
        for index, width in enumerate(own):
            pixels = generator.integers(0, 4096, (6, 6)).astype(np.uint16)
            window = {"WindowCenter": 40, "WindowWidth": width}
            dicom(tmp_path / "src" / name / f"{index}.dcm", pixels, PatientID=f"{name}{index}", **window)
    write_shards(tmp_path / "src", tmp_path / "out")
    lines = [record.message for record in caplog.records if "window" in record.message]
    if said is None:
        assert not lines
        return
    (line,) = lines
    start = "no window is shared by the DICOM files of all classes; the most common ones: "
    assert line.startswith(f"{tmp_path / 'src'}: {start}{said}")
    assert line.endswith("; a model may tell classes apart by it: --window LOW HIGH scales all alike")
    caplog.clear()
    write_shards(tmp_path / "src", tmp_path / "alike", depth=Depth(window=(0, 4095)))
    assert "window" not in caplog.text


@pytest.mark.parametrize(
    ("elements", "reason"),
    [
        ({"PhotometricInterpretation": "PALETTE COLOR"}, "DICOM with a lookup table"),
        ({"PhotometricInterpretation": "YBR_FULL"}, "cannot be decoded|is not supported"),
        ({"Rows": 20_000, "Columns": 20_000}, "more pixels than the limit"),
        ({"Rows": 4000}, "cannot be decoded|not decoded"),
    ],
)
def test_dicom_that_is_not_read_says_why(tmp_path: Path, elements: dict[str, Any], reason: str) -> None:
    path = dicom(tmp_path / "a.dcm", STORED, **elements)
    with pytest.raises(ValueError, match=reason):
        encode(path, None)


def test_dicom_without_pixels_and_damaged_dicom(tmp_path: Path) -> None:
    path = dicom(tmp_path / "a.dcm", STORED)
    pydicom = pytest.importorskip("pydicom", reason="needs temper[medical]")
    report = pydicom.dcmread(path)
    del report.PixelData
    report.save_as(tmp_path / "report.dcm")
    with pytest.raises(ValueError, match=r"DICOM without pixels \(modality CT\)"):
        encode(tmp_path / "report.dcm", None)
    content = path.read_bytes()
    generator = np.random.default_rng(0)
    for number in range(60):
        changed = bytearray(content)
        place = int(generator.integers(140, len(content)))
        changed[place] ^= int(generator.integers(1, 256))
        path.write_bytes(bytes(changed) if number % 3 else bytes(content[:place]))
        try:
            assert encode(path, 64).long_side <= 64
        except ValueError as problem:
            assert len(str(problem).splitlines()) == 1  # noqa: PT017  # either is right


def test_heic_is_read_with_its_extra(tmp_path: Path) -> None:
    heif = pytest.importorskip("pillow_heif", reason="needs temper[heic]")
    heif.register_heif_opener()
    picture = Image.new("RGB", (48, 32), "red")
    picture.save(
        tmp_path / "a.heic", "HEIF", save_all=True, append_images=[Image.new("RGB", (48, 32), "blue")]
    )
    kept = encode(tmp_path / "a.heic", None)
    assert (kept.note, kept.long_side) == ("the first of 2 pictures", 48)
    pixels = np.asarray(Image.open(io.BytesIO(kept.content)).convert("RGB"))
    assert np.abs(pixels.astype(int) - [255, 0, 0]).max() < 12


WITHOUT = """
import sys
from collections.abc import Sequence
from pathlib import Path
sys.modules["pydicom"] = sys.modules["pillow_heif"] = None
from temper.data.encode import encode
from temper.errors import DataError
try:
    encode(Path(sys.argv[1]), None)
except ValueError as problem:
    print(problem)
"""


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (
            b"\0" * 128 + b"DICM" + b"\0" * 64,
            "DICOM, which needs pydicom; pip install 'temper[medical]' installs it",
        ),
        (
            b"\0\0\0\x1cftypheic" + b"\0" * 64,
            "HEIC, which needs pillow-heif; pip install 'temper[heic]' installs it",
        ),
    ],
    ids=["dicom", "heic"],
)
def test_a_missing_extra_is_named(tmp_path: Path, content: bytes, says: str) -> None:
    """In a process of its own, in which neither package can be imported."""
    (tmp_path / "file").write_bytes(content)
    found = subprocess.run(
        [sys.executable, "-c", WITHOUT, tmp_path / "file"], capture_output=True, text=True, check=True
    )
    assert found.stdout.strip() == says
