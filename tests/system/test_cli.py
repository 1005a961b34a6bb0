"""The command line as a user meets it: help, output, exit codes, and wrong input."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import temper

ROOT = Path(__file__).parents[2]
TINY = str(ROOT / "jobs/recipes/tiny.yaml")
COMMANDS = [
    "doctor",
    "examples",
    "demo",
    "fit",
    "shards",
    "plan",
    "train",
    "merge",
    "models",
    "sweep",
    "crossval",
    "evaluate",
    "compare",
    "predict",
    "calibrate",
    "export",
    "verify",
    "leaderboard",
    "serve",
    "submit-entry",
    "import-entry",
    "check-board",
]


def run(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments], cwd=cwd, capture_output=True, text=True, check=False, timeout=300
    )


@pytest.mark.parametrize("command", ["shards", "predict", "leaderboard"])
def test_a_terminal_of_ascii_shows_names_as_escapes(
    command: str, evaluated_run: Path, vary: Any, tmp_path: Path
) -> None:
    for name in ("Hände", "Füße"):
        (tmp_path / "images" / name).mkdir(parents=True)
        for index in range(4):
            image = Image.new("L", (8, 8), 10 * index + len(name))
            image.save(tmp_path / "images" / name / f"größe{index}.png")
    vary(tmp_path, "Größe", np.ones(20, bool))
    arguments = {
        "shards": ["images", "shards"],
        "predict": [str(evaluated_run), "images"],
        "leaderboard": ["Größe", "--out", "board"],
    }[command]
    found = subprocess.run(
        [sys.executable, "-m", "temper.cli", command, *arguments],
        cwd=tmp_path,
        capture_output=True,
        check=False,
        timeout=300,
        env={**os.environ, "LC_ALL": "C", "PYTHONIOENCODING": "ascii"},
    )
    shown = (found.stdout + found.stderr).decode("ascii")
    assert found.returncode == 0, shown
    assert "Traceback" not in shown
    assert {"shards": "H\\xe4nde", "predict": "gr\\xf6\\xdfe", "leaderboard": "Gr\\xf6\\xdfe"}[
        command
    ] in shown


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_s_help_shows_an_example(command: Any, name: str) -> None:
    code, out, _ = command(name, "--help")
    assert code == 0
    assert f"Example: temper {name}" in " ".join(out.split())
    assert "--json" in out
    assert "--verbose" in out


def test_help_names_every_command(command: Any) -> None:
    code, out, _ = command("--help")
    assert code == 0
    assert all(name in out for name in COMMANDS)
    assert command("--version")[1].strip() == f"temper {temper.__version__}"


def test_the_job_prints_json_alone_on_stdout(tiny: dict[str, Any], tmp_path: Path) -> None:
    few = {"epochs": 1, "data.shots_per_class": 10, "evaluation.max_images": 8}
    overrides = [f"--set={name}={value}" for name, value in {**tiny, **few}.items()]
    result = run(str(ROOT / "jobs/train.py"), TINY, *overrides, "--json", "--out", "r", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    summary = json.loads(result.stdout)
    assert summary.pop("record") == "r/record.json"
    assert summary == json.loads((tmp_path / "r/record.json").read_text())
    assert "epoch" in result.stderr
    assert "record: r/record.json" in result.stderr
    again = run(str(ROOT / "jobs/evaluate.py"), "r", cwd=tmp_path)
    assert again.returncode == 1
    assert "record.json" in again.stderr


def test_leaderboard_as_json(command: Any, evaluated_run: Path, tmp_path: Path) -> None:
    code, out, err = command("leaderboard", evaluated_run, "--out", tmp_path / "board", "--json")
    assert code == 0
    entry = json.loads(out)["boards"][0]["entries"][0]
    assert 0 <= entry["robust_low"] <= entry["robust_acc"] <= entry["robust_high"] <= 1
    assert "index.html" in err


def test_a_board_of_which_every_record_was_left_out_is_an_error(command: Any, tmp_path: Path) -> None:
    for name in ("old", "older"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "record.json").write_text('{"schema_version": 0}')
    code, out, err = command("leaderboard", tmp_path, "--out", tmp_path / "board", "--json")
    assert code == 1
    assert len(json.loads(out)["skipped"]) == 2
    assert "the board is empty: all 2 records were left out" in err


def test_published_entries_are_imported_shown_and_told(
    command: Any, evaluated_run: Path, tmp_path: Path
) -> None:
    entry = {"name": "Invented", "dataset": "digits_target", "eps": "0.1", "clean_acc": "90", "reported": "",
             "autoattack_acc": "50", "corruptions_acc": "1"}  # fmt: skip
    (tmp_path / "Linf").mkdir()
    (tmp_path / "Linf/A.json").write_text(json.dumps(entry))
    code, out, err = command("import-entry", tmp_path / "Linf/A.json", tmp_path / "board", "--json")
    assert (code, len(json.loads(out)["added"])) == (0, 1)
    assert "not imported: " in err
    assert "A.json: 'corruptions_acc'" in " ".join(err.split())
    told = "1 published result, not measured here: in grey, without a rank"
    code, out, err = command(
        "leaderboard", evaluated_run, tmp_path / "board", "--out", tmp_path / "out", "--json"
    )
    assert (code, json.loads(out)["external"][0]["entries"][0]["name"]) == (0, "A")
    assert told in err
    assert "nothing is ranked" not in err
    code, out, err = command("leaderboard", tmp_path / "board", "--out", tmp_path / "out")
    assert code == 0
    assert f"{told}; no model was measured here, so nothing is ranked" in err
    (tmp_path / "board/old").mkdir()
    (tmp_path / "board/old/record.json").write_text('{"schema_version": 0}')
    code, out, err = command("leaderboard", tmp_path / "board", "--out", tmp_path / "out")
    assert code == 1
    assert "the board is empty: all 1 records were left out; the rest, 1 published result, was not" in err
    code, out, err = command("check-board", tmp_path / "board", "--json")
    assert code == 1  # for the old record
    assert json.loads(out)["external"] == [
        name for name, found in json.loads(out)["entries"].items() if not found
    ]
    place = tmp_path / "board" / json.loads(out)["external"][0]
    for words in (["verify", place], ["compare", evaluated_run, place / "external.json"]):
        code, _, err = command(*words)
        assert code == 1
        assert "an external record, published elsewhere and not measured here" in err
    (tmp_path / "Linf/A.json").write_text(json.dumps({**entry, "clean_acc": "ninety"}))
    code, _, err = command("import-entry", tmp_path / "Linf", tmp_path / "board")
    assert code == 1
    assert "A.json: 'clean_acc' must be a percentage such as \"53.08\", got 'ninety'" in err
    assert "1 of 1 files refused, so nothing was written" in err


def test_doctor_finds_what_is_installed(command: Any) -> None:
    code, out, err = command("doctor")
    assert code == 0, err
    assert "torch" in out


ZOO = """
import torch
def build():
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(192, 5))
"""


def test_evaluate_takes_a_function_that_returns_a_model(
    command: Any, digits: dict[str, Path], tmp_path: Path
) -> None:
    (tmp_path / "zoo.py").write_text(ZOO)
    few = ["--set", "evaluation.max_images=32", "--set", "evaluation.suite=quick"]
    place = ["--data", digits["target"], "--size", "8", "--eps", "4/255", "--out", tmp_path / "zoo"]
    code, out, err = command("evaluate", f"{tmp_path}/zoo.py:build", *place, *few, "--json")
    assert code == 0, err
    record = json.loads(out)
    assert record["model"]["backbone"] == "Sequential"
    assert record["threat"] == {"norm": "linf", "eps": 4 / 255}
    assert record["clean_acc"]["total"] == 32
    code, _, err = command("evaluate", f"{tmp_path}/zoo.py:build", *place, *few)
    assert code == 1
    assert "already evaluated" in one_error(err)


def photos(folder: Path, classes: dict[str, int]) -> Path:
    generator = np.random.default_rng(0)
    for name, count in classes.items():
        (folder / name).mkdir(parents=True)
        for index in range(count):
            pixels = generator.integers(0, 256, (12, 12, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{index}.jpg")
    return folder


def test_a_corrupt_photo_is_listed_or_stops_the_job(command: Any, tmp_path: Path) -> None:
    source = photos(tmp_path / "photos", {"a": 20, "b": 20})
    (source / "a/3.jpg").write_bytes((source / "a/3.jpg").read_bytes()[:200])
    Image.new("L", (8, 8)).save(source / "stray.png")
    (source / "a/notes.txt").write_text("x")
    code, _, err = command("shards", source, tmp_path / "strict")
    assert code == 1
    assert "more than 1.0% of 40 images" in one_error(err)
    assert "a/3.jpg" in err
    assert not (tmp_path / "strict").exists()
    code, _, err = command("shards", source, tmp_path / "shards", "--max-bad", "0.1")
    assert code == 0
    assert "skipped a/3.jpg: " in err
    assert "refused stray.png: lies in no class folder" in err
    assert err.endswith(
        "files seen: 42 = 39 images + 1 skipped + 2 refused (1 of them notes or files of the system)\n"
    )
    manifest = json.loads((tmp_path / "shards/manifest.json").read_text())
    assert [image["path"] for image in manifest["refused"]] == ["stray.png"]
    assert manifest["num_notes"] == 1


def test_names_of_files_do_not_break_lines(command: Any, tmp_path: Path) -> None:
    source = photos(tmp_path / "photos", {"a": 20, "b": 20})
    (source / "a/two\nlines.jpg").write_bytes(b"no image")
    (source / "b/twice\tnamed.jpg").write_bytes((source / "a/0.jpg").read_bytes())
    Image.new("L", (8, 8)).save(source / "stray\n.png")
    code, _, err = command("shards", source, tmp_path / "strict")
    assert code == 1
    assert r"  a/two\nlines.jpg: not an image" in err
    code, _, err = command("shards", source, tmp_path / "shards", "--max-bad", "0.1")
    assert code == 0, err
    for line in (
        r"skipped a/two\nlines.jpg: ",
        r"refused stray\n.png: ",
        r"the same picture in several classes: ",
    ):
        assert any(one.startswith(line) for one in err.splitlines()), line
    assert r"b/twice\tnamed.jpg" in err


def test_a_flat_folder_with_a_table_of_labels(command: Any, tmp_path: Path) -> None:
    flat = photos(tmp_path, {"flat": 60}) / "flat"
    rows = [f"{index}.jpg,{'ill' if index % 4 < 2 else 'well'},p{index // 5}" for index in range(60)]
    (tmp_path / "labels.csv").write_text("\n".join(["file_name,label,patient", *rows]))
    code, out, err = command("shards", flat, tmp_path / "1", "--labels", tmp_path / "labels.csv", "--json")
    assert code == 0, err
    found = json.loads(out)
    assert (found["classes"], found["attributes"]) == (["ill", "well"], ["patient"])
    assert "attributes: patient; no column is called 'group', so all images count as independent" in err
    (tmp_path / "labels.csv").write_text("\n".join(["file_name,label,group", *rows]))
    code, out, err = command("shards", flat, tmp_path / "2", "--labels", tmp_path / "labels.csv", "--json")
    assert code == 0, err
    found = json.loads(out)
    assert found["attributes"] == ["group"]
    assert found["straddling"] == []
    assert "attributes: group\n" in err
    (flat / "more.jpg").write_bytes((flat / "0.jpg").read_bytes())
    code, _, err = command("shards", flat, tmp_path / "3", "--labels", tmp_path / "labels.csv", "--json")
    assert code == 1
    assert "more.jpg without a row in" in one_error(err)


def test_the_depth_of_16_bit_files_is_said_and_can_be_given(command: Any, tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    for name in ("a", "b"):
        (tmp_path / "set" / name).mkdir(parents=True)
        for index in range(12):
            pixels = generator.integers(0, 4000, (8, 8)).astype(np.uint16)
            pixels[0, 0] = 4000
            Image.fromarray(pixels).save(tmp_path / "set" / name / f"{index}.png")
    code, _, err = command("shards", tmp_path / "set", tmp_path / "found")
    assert code == 0
    assert "the largest value of the set is 4000: 12 bits, values 0..4095 become 0..255 (--bit-depth" in err
    code, out, err = command("shards", tmp_path / "set", tmp_path / "bits", "--bit-depth", "14", "--json")
    assert code == 0
    assert "images of more than 8 bits: 14 bits, values 0..16383 become 0..255\n" in err
    assert json.loads(out)["depth"] == {"bits": 14, "window": None, "largest": None}
    code, out, _ = command(
        "shards", tmp_path / "set", tmp_path / "win", "--window", "-100", "900.5", "--json"
    )
    assert code == 0
    assert json.loads(out)["depth"]["window"] == [-100, 900.5]
    for wrong, says in (
        (["--bit-depth", "12", "--window", "0", "1"], "--bit-depth and --window: give one of them"),
        (["--window", "5", "5"], "--window: expected two numbers, the lower one first, got 5 5"),
        (["--window", "0", "inf"], "--window: expected two numbers, the lower one first, got 0 inf"),
    ):
        code, _, err = command("shards", tmp_path / "set", tmp_path / "wrong", *wrong)
        assert code == 2
        assert says in one_error(err)


def test_leaking_images_are_named_block_and_can_be_allowed(command: Any, tmp_path: Path) -> None:
    for split in ("train", "test"):
        photos(tmp_path / "set" / split, {"a": 12, "b": 12})
    code, _, err = command("shards", tmp_path / "set", tmp_path / "shards")
    assert code == 0
    assert "copies: 48 images show 24 pictures; 24 in several splits, 0 in several classes" in err
    assert "the same picture in several splits: train/a/" in err
    build = "from torch import nn\ndef build():\n    return nn.Sequential(nn.Flatten(), nn.Linear(192, 2))\n"
    (tmp_path / "zoo.py").write_text(build)
    place = ["--data", tmp_path / "shards", "--size", "8", "--eps", "4/255"]
    few = ["--set", "evaluation.max_images=16", "--json"]
    code, out, err = command("evaluate", f"{tmp_path}/zoo.py:build", *place, *few, "--out", tmp_path / "1")
    assert code == 0, err
    assert json.loads(out)["status"] == "blocked"
    assert "blocked by the gate 'leakage': 16 of 16 test images lie in train or val too" in err
    code, out, err = command(
        "evaluate", f"{tmp_path}/zoo.py:build", *place, *few, "--allow-leakage", "--out", tmp_path / "2"
    )
    assert code == 0, err
    gate = next(gate for gate in json.loads(out)["gates"] if gate["name"] == "leakage")
    assert gate["passed"]
    assert gate["detail"].startswith("allowed by evaluation.allow_leakage: 16 of 16 test images")


def test_an_empty_class_is_named(command: Any, tmp_path: Path) -> None:
    source = photos(tmp_path / "photos", {"a": 20, "b": 20, "none": 0})
    code, _, err = command("shards", source, tmp_path / "shards")
    assert code == 1
    assert "none" in one_error(err)


ELSEWHERE = ["--data", "shards", "--size", "8", "--eps", "0.1", "--out", "run"]
WRONG = [
    (["train", TINY, "--set", "objctive.alpha=1"], 2, "did you mean 'objective'"),
    (["train", TINY, "--set", "threat.eps=8"], 2, "did you mean 8/255"),
    (["train", TINY, "--set", "alpha"], 2, "path=value"),
    (["train", TINY, "--set", "model.backbone=resnet9"], 2, "resnet8"),
    (["train", TINY, "--set", "epochs=0"], 2, "epochs"),
    (["train", "nowhere.yaml"], 2, "nowhere.yaml"),
    (["train", TINY], 1, "no shards here"),
    (["sweep", TINY, "nowhere.yaml"], 2, "nowhere.yaml"),
    (["crossval", TINY, "--target", "nowhere"], 1, "no shards here"),
    (["crossval", TINY, "--set", "data.fold={index: 0, count: 2}"], 2, "leave it out"),
    (["crossval", TINY, "--by-site", "--folds", "3"], 2, "as many folds as sites; leave out --folds"),
    (["shards", "nowhere", "shards"], 1, "nowhere"),
    (["shards", ".", "shards", "--labels", "nowhere.csv"], 1, "nowhere.csv: cannot be read"),
    (["evaluate", "nowhere"], 1, "nowhere"),
    (["evaluate", "zoo.py:build"], 2, "a model that is not a run needs --data, --size, --eps, --out"),
    (["evaluate", "zoo.py:build", *ELSEWHERE], 1, "shards: no shards here"),
    (["evaluate", "w.pth", *ELSEWHERE], 2, "expected module:function or file.py:function, got 'w.pth'"),
    (["evaluate", "zoo.py:build", *ELSEWHERE, "--eps", "8"], 2, "did you mean 8/255"),
    (["evaluate", "zoo.py:build", *ELSEWHERE, "--set", "evaluation.suit=full"], 2, "did you mean 'suite'"),
    (["predict", "nowhere", "a.png"], 2, "nowhere: no such file or folder; expected the folder of"),
    (["predict", ".", "a.png"], 2, "not a model; expected"),
    (["calibrate", "nowhere"], 2, "nowhere: no run here"),
    (["calibrate", "nowhere", "--coverage", "95"], 2, "between 0 and 1; got 95"),
    (["export", "nowhere", "--out", "there"], 2, "nowhere: no such file or folder"),
    (["leaderboard", "nowhere"], 2, "nowhere"),
    (["leaderboard", "."], 1, "no record.json"),
    (["demo", "--out", "."], 1, "already exists"),
]


@pytest.mark.parametrize(("arguments", "expected", "message"), WRONG, ids=lambda value: str(value)[-40:])
def test_wrong_input_is_one_clear_line(
    command: Any, arguments: list[str], expected: int, message: str, tmp_path: Path, monkeypatch: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    code, out, err = command(*arguments)
    assert message in one_error(err)
    assert (code, out) == (expected, "")
    assert list(tmp_path.iterdir()) == []


def test_broken_yaml_is_named_with_its_line(command: Any, tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_text("name: [\nseed: 0\n")
    code, _, err = command("train", tmp_path / "r.yaml")
    assert code == 2
    assert "r.yaml" in one_error(err)


def test_unknown_option_and_command_are_wrong_use(command: Any) -> None:
    assert command("train", TINY, "--nonsense")[0] == 2
    assert command("polish")[0] == 2


def one_error(err: str) -> str:
    lines = [line for line in err.splitlines() if line.startswith("error:")]
    assert len(lines) == 1, err
    assert "Traceback" not in err
    return lines[0]


def test_plan_shows_phases_without_training(command: Any, tiny: dict[str, Any]) -> None:
    overrides = [part for name, value in tiny.items() for part in ("--set", f"{name}={value}")]
    changes = ["--set", "schedule.kind=lp_ft", "--set", "schedule.group_decay=2"]
    code, out, _ = command("plan", TINY, *overrides, *changes, "--json")
    assert code == 0
    assert json.loads(out)["estimate"]["compute_s"] > 0
    probe, tune = json.loads(out)["phases"]
    assert (probe["trainable_params"], probe["is_solved"]) == ({"head": 2 * (64 * 5 + 5)}, True)
    assert (tune["epochs"], tune["is_attacked"]) == ([2, 2], True)
    rates = tune["learning_rates"]
    assert rates["head"] == pytest.approx(0.01)
    assert rates["layer3"] == pytest.approx(0.005)
    _, out, err = command("plan", TINY, *overrides, *changes)
    assert "solved" in out
    assert re.search(
        r"^estimated: .* s of one worker .* this machine's CPU\) and up to \d+ MB", err, re.MULTILINE
    )
    code, _, err = command("plan", TINY, *overrides, "--set", "schedule={kind: last_k, k: 9}")
    assert code == 2
    assert "schedule 'last_k': k is 9, this model has 5 groups" in err


def test_merge_asks_for_a_run_with_an_adapter(command: Any, evaluated_run: Path, tmp_path: Path) -> None:
    code, _, err = command("merge", evaluated_run, "--out", tmp_path / "merged")
    assert code == 1
    assert "this run has no adapter" in err
    code, _, err = command("merge", tmp_path / "nothing", "--out", tmp_path / "merged")
    assert code == 1
    assert "no checkpoint here" in err


@pytest.mark.long
def test_streams_need_no_workers(tmp_path: Path, tiny: dict[str, Any]) -> None:
    """Where nobody has started Ray: the one process that trains does."""
    given = [f"--set={name}={value}" for name, value in tiny.items()]
    streamed = ["--set=data.resident=false", "--set=workers.num_workers=0", "--set=epochs=1"]
    result = run(str(ROOT / "jobs/train.py"), TINY, "--out", "r", *given, *streamed, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert "Traceback" not in result.stderr
    assert (tmp_path / "r/record.json").exists()


INTERRUPTIBLE = (
    "import runpy, signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
    "runpy.run_module('temper.cli', run_name='__main__')"
)
"""The command line, also where whoever started the tests ignores Ctrl-C, as shells do in the background."""


def test_a_demo_that_is_interrupted_says_how_to_run_it_again(tmp_path: Path) -> None:
    """It refuses a folder that exists, and resumes nothing."""
    out = tmp_path / "demo"
    words = [sys.executable, "-c", INTERRUPTIBLE, "demo", "--out", str(out)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        try:
            until = time.monotonic() + 120
            while not out.exists() and process.poll() is None and time.monotonic() < until:
                time.sleep(0.01)
            process.send_signal(signal.SIGINT)
            said, _ = process.communicate(timeout=60)
        finally:
            process.kill()
    assert process.returncode == 130, said
    assert f"interrupted: remove {out} and run the same command again" in " ".join(said.split())
    assert "resume" not in said
    assert "Traceback" not in said
