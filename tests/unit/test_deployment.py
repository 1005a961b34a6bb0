"""A trained model in use: predictions, calibration, exports."""

import csv
import io
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import temper
from temper.cli import main
from temper.cluster.launch import launch
from temper.credentials import on_a_line
from temper.data import ImageView, ShardSet, load_images, write_shards
from temper.deployment import Classifier, calibrate, export, predict
from temper.deployment.onnx_files import missing_packages, run_onnx
from temper.errors import CheckpointError, DataError, RecordError, UsageError
from temper.records import Depth, read_calibration, read_export, sha256_of
from temper.training import read_state


@pytest.fixture(scope="module")
def run(evaluated_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run; not to be changed, but for its calibration."""
    return Path(shutil.copytree(evaluated_run, tmp_path_factory.mktemp("runs") / "used"))


@pytest.fixture
def copied(run: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(run, tmp_path / "run"))


@pytest.fixture(scope="module")
def exported(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An export of it, calibrated."""
    calibrate(run)
    return export(run, tmp_path_factory.mktemp("exports") / "used").path


@pytest.fixture(scope="module")
def photos(digits: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of 12 digits in two folders, with a note, and what a system leaves behind."""
    folder = tmp_path_factory.mktemp("photos")
    for place, source in enumerate(sorted(digits["images"].rglob("*.png"))[::75]):
        target = folder / ("a" if place % 2 else "b") / source.name
        target.parent.mkdir(exist_ok=True)
        shutil.copy(source, target)
    (folder / "a/notes.txt").write_text("from the second shift")
    (folder / "Thumbs.db").write_bytes(b"\0")
    return folder


def own_logits(run: Path, pixels: np.ndarray) -> torch.Tensor:
    """What the run answers, by way of the evaluation's own opener."""
    from temper.run.run_target import RunTarget

    with torch.no_grad():
        logits: torch.Tensor = RunTarget.open(run).model(torch.from_numpy(pixels).float() / 255)
    return logits


def test_images_get_the_labels_and_probabilities_of_the_run(run: Path, photos: Path) -> None:
    found = predict(run, photos)
    files = sorted(photos.rglob("*.png"))
    assert [one.image for one in found.images] == [str(file) for file in files]
    pixels = np.stack([np.broadcast_to(np.asarray(Image.open(file)), (3, 8, 8)) for file in files])
    calibration = read_calibration(run / "calibration.json")
    temperature = calibration.temperature if calibration else 1.0
    expected = (own_logits(run, pixels).double() / temperature).softmax(1)
    classes = read_state(run / "checkpoint").classes["target"]
    assert [one.label for one in found.images] == [classes[place] for place in expected.argmax(1)]
    for one, row in zip(found.images, expected, strict=True):
        assert list(one.probabilities.values()) == pytest.approx(row.tolist(), abs=1e-5)
        assert one.probability == max(one.probabilities.values())
    assert not found.bad


def test_a_photo_is_prepared_as_its_shard_would_be(
    copied: Path, digits: dict[str, Path], tmp_path: Path
) -> None:
    """Test images as they come out of shards, and from their files, get the same answers."""
    shards = ShardSet.open(digits["target"])
    images = load_images(shards, "test", ImageView(8))
    parts = [shards.read(group)["image"].combine_chunks().field("path") for group in shards.row_groups]
    names = [name for part in parts for name in part.to_pylist()]
    chosen = range(0, len(images.rows), 20)
    files = [digits["images"] / names[images.rows[place]] for place in chosen]
    found = predict(copied, files)
    logits = own_logits(copied, images.images[list(chosen)])
    assert [one.energy for one in found.images] == pytest.approx((-logits.logsumexp(1)).tolist(), abs=1e-4)


def test_flags_follow_the_thresholds(copied: Path, photos: Path) -> None:
    calibration = calibrate(copied)
    opened = Classifier.open(copied, use_gpu=False)
    assert opened.calibration == calibration
    plain = predict(opened, photos)
    assert all(one.is_rejected == (one.probability < calibration.min_confidence) for one in plain.images)
    assert all(one.is_out_of_distribution == (one.energy > calibration.max_energy) for one in plain.images)
    assert all(one.is_suspicious == (one.squeezing > calibration.max_squeezing) for one in plain.images)
    strict = calibration.model_copy(update={"max_energy": -1e9, "max_squeezing": 0.0})
    flagged = predict(replace(opened, calibration=strict), photos, min_confidence=1.0)
    assert all(one.is_out_of_distribution and one.is_suspicious for one in flagged.images)
    assert flagged.num_rejected == len(flagged.images) == 12
    assert predict(opened, photos, min_confidence=0.0).num_rejected == 0


def test_without_a_calibration_nothing_is_flagged(copied: Path, photos: Path) -> None:
    (copied / "calibration.json").unlink(missing_ok=True)
    found = predict(copied, photos)
    assert not found.is_calibrated
    assert {one.is_rejected for one in found.images} == {None}
    assert {one.is_suspicious for one in found.images} == {None}
    assert predict(copied, photos, min_confidence=1.0).num_rejected == 12


def test_the_same_run_is_calibrated_the_same_way(copied: Path) -> None:
    first = calibrate(copied)
    written = (copied / "calibration.json").read_bytes()
    assert calibrate(copied) == first
    assert (copied / "calibration.json").read_bytes() == written
    assert first.checkpoint == sha256_of(copied / "checkpoint/model.safetensors")
    assert calibrate(copied, coverage=0.5).min_confidence > first.min_confidence


def test_an_export_stands_alone_and_answers_as_the_run(
    run: Path, exported: Path, photos: Path, tmp_path: Path
) -> None:
    moved = Path(shutil.copytree(exported, tmp_path / "elsewhere/model"))
    record = read_export(moved / "export.json")
    assert all(sha256_of(moved / file.path) == file.sha256 for file in record.files.values())
    assert record.classes == read_state(run / "checkpoint").classes["target"]
    assert (record.preprocessing.image_size, record.preprocessing.fit) == (8, "pad")
    assert record.calibration is not None
    assert (moved / "evaluation.json").read_bytes() == (run / "record.json").read_bytes()
    from_run, from_export = predict(run, photos), predict(moved, photos)
    for one, other in zip(from_run.images, from_export.images, strict=True):
        assert one.label == other.label
        assert list(one.probabilities.values()) == pytest.approx(list(other.probabilities.values()), abs=1e-4)
        flags = ("is_rejected", "is_out_of_distribution", "is_suspicious")
        assert all(getattr(one, name) == getattr(other, name) for name in flags)
    assert from_export.is_calibrated
    for part in ("export.json", "model.pt2"):
        assert Classifier.open(moved / part).classes == record.classes


def test_the_exported_program_has_the_run_s_logits_for_any_batch(
    run: Path, exported: Path, digits: dict[str, Path]
) -> None:
    pixels = load_images(ShardSet.open(digits["target"]), "test", ImageView(8)).images[:40]
    expected = own_logits(run, pixels)
    # Loading is safe here alone: this test has just made the file.
    program = torch.export.load(exported / "model.pt2").module()
    for size in (1, 2, 7, 40):
        with torch.no_grad():
            answered = program(torch.from_numpy(pixels[:size]).float() / 255)
        assert answered.shape == (size, 5)
        assert (answered - expected[:size]).abs().max() < 1e-4


@pytest.mark.skipif(bool(missing_packages()), reason=f"not installed: {', '.join(missing_packages())}")
def test_the_onnx_model_has_the_run_s_logits(run: Path, exported: Path, digits: dict[str, Path]) -> None:
    answer = run_onnx((exported / "model.onnx").read_bytes())
    images = load_images(ShardSet.open(digits["target"]), "test", ImageView(8)).images
    for size in (1, 7):
        answered = answer(torch.from_numpy(images[:size]).float() / 255)
        assert (answered - own_logits(run, images[:size])).abs().max() < 1e-4


@pytest.mark.skipif(not missing_packages(), reason="the packages for ONNX are installed")
def test_onnx_that_cannot_be_written_is_explained(run: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"needs the packages .*onnx.*pip install 'temper\[onnx\]'"):
        export(run, tmp_path / "no", onnx=True)
    assert not (tmp_path / "no").exists()


def test_an_adapted_transformer_is_exported_too(tiny_recipe: Any, tmp_path: Path, photos: Path) -> None:
    changes = {"model__backbone": "small_vit", "model__adapter": {"kind": "bottleneck"}}
    few = {"epochs": 1, "validation__max_images": 16, "data__shots_per_class": 8}
    launch(tiny_recipe(**few, **changes), tmp_path / "run")
    made = export(tmp_path / "run", tmp_path / "export")
    assert made.record.largest_change["model.pt2"] < 1e-4
    run, other = predict(tmp_path / "run", photos), predict(made.path, photos)
    assert [one.probability for one in run.images] == pytest.approx(
        [one.probability for one in other.images], abs=1e-4
    )


def test_what_is_no_model_is_explained(run: Path, exported: Path, photos: Path, tmp_path: Path) -> None:
    with pytest.raises(
        UsageError, match=r"nowhere: no such file or folder; expected the folder of a finished"
    ):
        predict(tmp_path / "nowhere", photos)
    with pytest.raises(UsageError, match="not a model; expected"):
        predict(photos, photos)
    with pytest.raises(UsageError, match=r"min_confidence: a probability in 0..1, got 80"):
        predict(run, photos, min_confidence=80)
    with pytest.raises(CheckpointError, match="already exists"):
        export(run, exported)
    with pytest.raises(UsageError, match="already an export"):
        export(exported, tmp_path / "again")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="empty: no images found"):
        predict(run, tmp_path / "empty")


def test_weights_that_were_changed_are_refused(
    exported: Path, copied: Path, photos: Path, tmp_path: Path
) -> None:
    calibrate(copied)
    for folder, weights in ((copied, "checkpoint/model.safetensors"), (exported, "model.safetensors")):
        other = Path(shutil.copytree(folder, tmp_path / f"other-{folder.name}"))
        content = bytearray((other / weights).read_bytes())
        content[-1] ^= 1
        (other / weights).write_bytes(content)
        forget_digest(other)
        with pytest.raises(RecordError, match=r"its calibration belongs to other weights"):
            predict(other, photos)
        if (other / "record.json").exists():
            with pytest.raises(RecordError, match=r"model.safetensors is another file: SHA-256"):
                predict(other / "record.json", photos)
        (other / weights).write_bytes(content[:200])
        with pytest.raises(CheckpointError, match="not a checkpoint of this model"):
            predict(other, photos)


def forget_digest(run: Path) -> None:
    """As a version left the run that noted none of the best epoch; in an exported folder there is none."""
    state = run / "checkpoint/state.json"
    if state.exists():
        state.write_text(json.dumps({**json.loads(state.read_text()), "best_sha256": None}))


class Command:
    """Runs a command in this process."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys

    def __call__(self, *arguments: str | Path) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as end:
            main([str(argument) for argument in arguments])
        code: Any = end.value.code or 0
        return code, *self._capsys.readouterr()


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str]) -> Command:
    return Command(capsys)


def test_bad_images_are_told_and_counted_and_nothing_is_lost(
    command: Command, copied: Path, photos: Path, tmp_path: Path
) -> None:
    mixed = Path(shutil.copytree(photos, tmp_path / "mixed"))
    whole = sorted(mixed.rglob("*.png"))
    (mixed / "a/cut.png").write_bytes(whole[0].read_bytes()[:40])
    (mixed / "a/=1+1.png").write_bytes(b"no image")
    (mixed / "b/gone.png").symlink_to(tmp_path / "nothing")
    calibrate(copied)
    answers = tmp_path / "answers.csv"
    code, out, err = command("predict", copied, mixed, tmp_path / "absent.png", "--csv", answers, "--json")
    assert code == 1
    document = json.loads(out)
    assert document["num_images"] == 12
    bad = {Path(one["path"]).name: one["reason"] for one in document["bad"]}
    assert bad.keys() == {"cut.png", "=1+1.png", "gone.png", "absent.png"}
    assert (bad["absent.png"], bad["gone.png"]) == ("no such file", "broken link")
    assert all(f"{name}: {reason}" in err for name, reason in bad.items())
    assert "; 4 could not be read" in err
    rows = list(csv.DictReader(io.StringIO(answers.read_text(encoding="utf-8"), newline="")))
    assert len(rows) == 16
    assert sum(bool(row["error"]) for row in rows) == 4
    assert [row["label"] for row in rows[:12]] == [one["label"] for one in document["images"]]
    assert [float(row["probability"]) for row in rows[:12]] == [
        one["probability"] for one in document["images"]
    ]


def test_names_that_break_lines_are_shown_on_one(
    command: Command, copied: Path, photos: Path, tmp_path: Path
) -> None:
    images, answers = tmp_path / "new", tmp_path / "answers.csv"
    images.mkdir()
    names = ["two\nlines.png", "a\ttab.png", "red\x1b[31m.png", "back\rwards.png", "turned\u202e.png"]
    for name in names:
        shutil.copy(next(photos.rglob("*.png")), images / name)
    (images / "bad\nname.png").write_bytes(b"no image")
    code, out, err = command("predict", copied, images, "--csv", answers)
    assert code == 1
    for shown in (r"two\nlines", r"a\ttab", r"red\x1b[31m", r"back\rwards", r"turned\u202e", r"bad\nname"):
        assert f"│ {shown}.png " in out
    assert not set("\t\r\x1b\u202e").intersection(out + err)
    assert r"not read: " in err
    assert r"bad\nname.png: not an image" in err
    with answers.open(encoding="utf-8", newline="") as file:
        found = {Path(row["image"]).name for row in csv.DictReader(file)}
    assert found == {on_a_line(name) for name in [*names, "bad\nname.png"]}
    code, out, _ = command("predict", copied, images, "--json")
    assert {Path(one["image"]).name for one in json.loads(out)["images"]} == set(names), "as they are"


def test_a_table_of_names_ends_in_what_is_read_instead(
    command: Command, copied: Path, photos: Path, tmp_path: Path
) -> None:
    said = "tables and lists of names are not read: give image files, or folders of them"
    names = tmp_path / "names.csv"
    names.write_text("\n".join(str(path) for path in photos.rglob("*.png")))
    code, _, err = command("predict", copied, names)
    assert code == 1
    assert err.splitlines()[-1] == said
    names.write_bytes(next(photos.rglob("*.png")).read_bytes())  # its content counts
    assert command("predict", copied, names)[0] == 0
    code, _, err = command("predict", copied, tmp_path / "absent.png")
    assert (code, said in err) == (1, False)


def test_the_commands_one_after_the_other(
    command: Command, copied: Path, photos: Path, tmp_path: Path
) -> None:
    (copied / "calibration.json").unlink(missing_ok=True)
    assert "not calibrated" in command("predict", copied, photos)[2]
    code, out, err = command("calibrate", copied, "--coverage", "0.8", "--json")
    assert code == 0, err
    assert json.loads(out)["coverage"] == 0.8
    code, out, err = command("export", copied, "--out", tmp_path / "made", "--json")
    assert code == 0, err
    assert json.loads(out)["calibration"]["coverage"] == 0.8
    assert ("no model.onnx: " in err) == bool(missing_packages())
    assert (tmp_path / "made/model.onnx").exists() != bool(missing_packages())
    code, out, err = command("predict", tmp_path / "made", photos)
    assert code == 0, err
    assert f"12 images in {photos}" in err.replace("\n", "")
    assert "not calibrated" not in err
    assert all(str(file.relative_to(photos)) in out for file in photos.rglob("*.png"))
    assert out.count(".png") == 12
    assert command("predict", tmp_path / "made", f"/{photos}")[0] == 0  # two slashes, which POSIX knows


def test_code_trains_uses_and_ranks(tiny_recipe: Any, photos: Path, tmp_path: Path) -> None:
    """The whole way from code, and a model from elsewhere on the same board."""
    few = {"epochs": 1, "validation__max_images": 16, "data__shots_per_class": 8}
    recipe = tiny_recipe(**few, evaluation__max_images=8)
    trained = temper.train(recipe, tmp_path / "runs/ours", evaluate=False)
    assert (trained.record, trained.state.best_epoch) == (None, 0)
    record = temper.evaluate(trained.path)
    again = temper.train(recipe, tmp_path / "runs/ours", resume=True)
    assert (again.path, again.record, again.state.best_epoch) == (trained.path, record, 0)
    assert temper.train(recipe, tmp_path / "runs/ours", go_on=True) == again, "its earlier name"
    shards = recipe.data.target

    # --- ten lines for a model of another origin
    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(192, 5))
    theirs = temper.evaluate(
        network, shards, image_size=8, eps=0.1, suite="quick", max_images=8, name="theirs",
        out=tmp_path / "runs/theirs",
    )  # fmt: skip
    published = temper.leaderboard(tmp_path / "runs", tmp_path / "board")
    # ---

    assert published.page.is_file()
    (board,) = published.summary.boards
    listed = {entry.name: entry.robust_acc for entry in (*board.entries, *board.blocked)}
    assert listed == {"tiny": record.robust_acc.value, "theirs": theirs.robust_acc.value}
    assert len(temper.predict(trained.path, photos).images) == 12
    assert temper.load_recipe(trained.path / "recipe.yaml").hash == recipe.hash


def test_12_bit_images_are_scaled_as_those_of_the_training_were(
    tiny_recipe: Any, tmp_path: Path, digits: dict[str, Path]
) -> None:
    """By the run, without its shards, and by its export: the same answers as from the shards."""
    for file in digits["images"].rglob("*.png"):
        target = tmp_path / "images" / file.relative_to(digits["images"])
        target.parent.mkdir(parents=True, exist_ok=True)
        deep = np.asarray(Image.open(file)).astype(np.uint16) * 16
        Image.fromarray(deep).save(target)
    manifest = write_shards(tmp_path / "images", tmp_path / "shards")
    assert manifest.depth == Depth(bits=12, largest=4080)
    launch(tiny_recipe(data__target=str(tmp_path / "shards"), epochs=1), tmp_path / "run")
    shards = ShardSet.open(tmp_path / "shards")
    images = load_images(shards, "test", ImageView(8))
    parts = [shards.read(group)["image"].combine_chunks().field("path") for group in shards.row_groups]
    names = [name for part in parts for name in part.to_pylist()]
    files = [tmp_path / "images" / names[row] for row in images.rows[:12]]
    expected = (-own_logits(tmp_path / "run", images.images[:12]).logsumexp(1)).tolist()
    exported = export(tmp_path / "run", tmp_path / "exported", onnx=False)
    assert exported.record.preprocessing.depth == manifest.depth
    shutil.rmtree(tmp_path / "shards")
    for model in (tmp_path / "run", tmp_path / "exported"):
        found = predict(model, files)
        assert [one.energy for one in found.images] == pytest.approx(expected, abs=1e-4)


def test_what_is_read_in_part_or_by_a_guess_is_told(
    run: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A model trained on 8 bits would see a 12-bit image nearly black, and of a film the first frame."""
    frames = [Image.fromarray(np.full((8, 8), level, np.uint8)) for level in (0, 90, 255)]
    frames[0].save(tmp_path / "film.gif", save_all=True, append_images=frames[1:])
    deep = np.random.default_rng(0).integers(0, 4096, (8, 8)).astype(np.uint16)
    deep[0, 0] = 4095
    Image.fromarray(deep).save(tmp_path / "scan.png")
    found = predict(run, [tmp_path, *sorted(photos.rglob("*.png"))[:2]])
    assert len(found.images) == 4
    assert {Path(one.path).name: one.reason for one in found.partly} == {
        "film.gif": "the first of 3 frames",
        "scan.png": "values up to 4095, scaled by all 16 bits, because the training images have no depth to "
        "scale them by",
    }
    with pytest.raises(SystemExit) as ended:
        main(["predict", str(run), str(tmp_path)])
    assert ended.value.code in (0, None)
    shown = " ".join(capsys.readouterr().err.split())
    assert "film.gif: the first of 3 frames" in shown
    assert "scan.png: values up to 4095" in shown


def test_the_limit_of_pixels_is_an_option(run: Path, photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 60)
    found = predict(run, photos)
    assert {one.reason for one in found.bad} == {
        "more pixels than the limit of 60 (--max-pixels N raises it)"
    }
    assert not found.images
    assert len(predict(run, photos, max_pixels=64).images) == 12
    assert Image.MAX_IMAGE_PIXELS == 60


@pytest.fixture(scope="module")
def pair(digits: dict[str, Path], tiny_recipe: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two classes whose names a spreadsheet or a table might change."""
    from temper.cluster.launch import launch
    from temper.data import write_shards

    base = tmp_path_factory.mktemp("pair")
    for source, name in (("5", "-1"), ("6", "Pneumothorax, UNTREATED")):
        files = sorted((digits["images"].parent / "digits_target" / source).glob("*.png"))[:40]
        (base / "images" / name).mkdir(parents=True)
        for file in files:
            shutil.copy(file, base / "images" / name)
    write_shards(base / "images", base / "shards")
    changes = {"data__target": str(base / "shards"), "data__source": None, "objective__alpha": 0, "epochs": 1}
    launch(tiny_recipe(**changes), base / "run")
    return base


def test_threshold_decides_between_two_classes(pair: Path) -> None:
    plain = predict(pair / "run", pair / "images")
    first, second = plain.classes
    shares = [one.probabilities[second] for one in plain.images]
    cut = float(np.median(shares))
    found = predict(pair / "run", pair / "images", threshold=cut)
    assert [one.label for one in found.images] == [second if share >= cut else first for share in shares]
    assert all(one.probability == one.probabilities[one.label] for one in found.images)
    assert {one.label for one in predict(pair / "run", pair / "images", threshold=0.0).images} == {second}
    with pytest.raises(UsageError, match=r"threshold: a probability in 0\.\.1, got 1.5"):
        predict(pair / "run", pair / "images", threshold=1.5)


def test_threshold_is_refused_for_more_classes_than_two(command: Command, run: Path, photos: Path) -> None:
    code, _, err = command("predict", run, photos, "--threshold", "0.3")
    assert code == 2
    assert "threshold: for models of two classes" in err
    assert "has 5; min_confidence (--min-confidence)" in err.replace("\n", " ")


@pytest.mark.parametrize(("threshold", "label"), [("0", "Pneumothorax, UNTREATED"), ("1", "-1")])
def test_csv_has_every_class_and_labels_as_they_are(
    command: Command, pair: Path, tmp_path: Path, threshold: str, label: str
) -> None:
    answers, images = tmp_path / "answers.csv", sorted((pair / "images").rglob("*.png"))[::4]
    code, out, err = command("predict", pair / "run", *images, "--csv", answers, "--threshold", threshold)
    assert code == 0, err
    rows = list(csv.DictReader(io.StringIO(answers.read_text(encoding="utf-8"), newline="")))
    assert [row["label"] for row in rows] == [label] * len(images)
    for row in rows:
        shares = [float(row[f"probability of {name}"]) for name in ("-1", "Pneumothorax, UNTREATED")]
        assert sum(shares) == pytest.approx(1)
        assert float(row["probability"]) in shares
    assert max(map(len, out.splitlines())) <= 80
    assert "…" not in out
    assert out.count(f"│ {label} ") == len(images)


def test_a_name_with_an_accent_is_found_however_it_is_spelled(
    run: Path, photos: Path, tmp_path: Path
) -> None:
    """macOS writes the accent of é as a character of its own."""
    composed, apart = "\u00e9.png", "e\u0301.png"
    shutil.copy(next(photos.rglob("*.png")), tmp_path / apart)
    found = predict(run, tmp_path / composed)
    assert not found.bad
    assert [Path(one.image).name for one in found.images] == [apart]
