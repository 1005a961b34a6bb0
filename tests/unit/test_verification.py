import copy
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.numpy import load_file, save_file

from temper.cluster.evaluate import evaluate_run
from temper.data import Manifest, write_shards
from temper.data.shard_set import ShardSet
from temper.errors import RecordError, UsageError
from temper.records import SavedImages, sha256_of, write_saved_images
from temper.run.run_target import RunTarget
from temper.run.verify import check_images, check_start, verify_record
from temper.run.verify.attacks import Reexamined, judge_fallen, judge_search
from temper.run.verify.load import check_suite, reopen
from temper.spec import Threat
from temper.statistics import wilson
from temper.verification import Check, Evidence, check_record, read_evidence, verify_shallow

EVERYTHING = {
    "evaluation.max_images": 24,
    "evaluation.curve": [0.05],
    "evaluation.others": [{"norm": "l2", "eps": 0.4}],
    "evaluation.corruptions": ["medical"],
    "evaluation.minimum_norms": True,
}


@pytest.fixture(scope="module")
def folder(evaluated_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An evaluation of everything there is, with its run beside it."""
    base = tmp_path_factory.mktemp("verify")
    shutil.copytree(evaluated_run, base / "run")
    evaluate_run(base / "run", EVERYTHING, out=base / "record")
    return base / "record"


@pytest.fixture(scope="module")
def evidence(folder: Path) -> Evidence:
    return read_evidence(folder / "record.json")


@pytest.fixture(scope="module")
def target(evidence: Evidence) -> RunTarget:
    found = reopen(evidence, None)
    assert not isinstance(found, str)
    assert isinstance(found[0], RunTarget)
    return found[0]


@pytest.fixture(scope="module")
def scene(evidence: Evidence, target: RunTarget) -> Reexamined:
    return Reexamined.of(evidence, target)


def failed(checks: list[Check]) -> list[str]:
    return [check.name for check in checks if not check.passed]


def tampered(folder: Path, edit: Callable[[Any], None]) -> list[str]:
    """The checks that fail after an edit of the record's document."""
    document = json.loads((folder / "record.json").read_text())
    edit(document)
    path = folder / "edited.json"
    path.write_text(json.dumps(document))
    return failed(check_record(path))


def test_an_honest_record_passes(folder: Path, evaluated_run: Path) -> None:
    for path in (folder, evaluated_run):
        found = verify_record(path, num_sampled=24)
        assert found.passed, found.failed
    names = [check.name for check in found.checks]
    assert len(set(names)) == len(names)
    deep = {"model", "images", "suite", "predictions", "adversarial images", "source and start"}
    assert {*deep, "attacked again", "gates again"} <= set(names)


def test_an_honest_record_passes_a_shallow_check(folder: Path) -> None:
    found = verify_shallow(folder)
    assert found.passed, found.failed
    assert found.depth == "shallow"
    assert "shallow" in found.not_checked[0]


NUMBERS = [
    ("clean_acc.count", "clean accuracy"),
    ("clean_acc.value", "clean accuracy"),
    ("balanced_acc", "clean accuracy"),
    ("auroc", "clean accuracy"),
    ("metrics.clean.macro_f1", "clean accuracy"),
    ("metrics.clean.balanced_acc", "clean accuracy"),
    ("robust_acc.count", "robust accuracy"),
    ("robust_acc.value", "robust accuracy"),
    ("robust_acc.low", "robust accuracy"),
    ("robust_acc.high", "robust accuracy"),
    ("robust_acc.total", "robust accuracy"),
    ("robust_balanced_acc", "robust accuracy"),
    ("metrics.robust.macro_f1", "robust accuracy"),
    ("metrics.robust.balanced_acc", "robust accuracy"),
    ("per_class.7.robust_acc", "per class"),
    ("per_class.5.clean_acc", "per class"),
    ("attacks.0.num_attacked", "attacks"),
    ("attacks.1.num_fooled", "attacks"),
    ("attacks.2.robust_acc_after", "attacks"),
    ("attacks.0.num_rejected", "status"),
    ("others.0.attacks.1.num_fooled", "attacks"),
    ("others.0.robust_acc.value", "threat models"),
    ("curve.0.robust_acc.count", "threat models"),
    ("curve.1.robust_acc.value", "threat models"),
    ("union_acc.value", "threat models"),
    ("corruptions.0.mean_acc", "corruptions"),
    ("corruptions.0.relative", "corruptions"),
    ("corruptions.0.num_images", "corruptions"),
    ("corruptions.0.kinds.contrast_down.2", "corruptions"),
    ("minimum_norm.median", "minimum norms"),
    ("minimum_norm.lower_quartile", "minimum norms"),
    ("minimum_norm.num_found", "minimum norms"),
    ("promises.robustness.robust_acc", "promises"),
    ("promises.robustness.retained", "promises"),
    ("promises.consistency.robust_acc_std", "promises"),
    ("promises.consistency.clean_acc_mean", "promises"),
    ("promises.adaptability.gain", "promises"),
    ("source_acc.value", "promises"),
    ("data.num_images", "outcomes"),
    ("data.image_size", "recipe"),
    ("threat.eps", "recipe"),
    ("seed", "recipe"),
    ("recipe.optim.lr", "recipe"),
    ("recipe.evaluation.batch_size", "recipe"),
]


def nudge(document: Any, path: str) -> None:
    """Change one number a little, within what its field allows."""
    *parents, leaf = [int(part) if part.isdigit() else part for part in path.split(".")]
    for name in parents:
        document = document[name] if isinstance(document, list) else document[str(name)]
    value = document[leaf]
    document[leaf] = value + 1 if isinstance(value, int) else value - 0.01 if value > 0.5 else value + 0.01


@pytest.mark.parametrize(("path", "check"), NUMBERS, ids=lambda value: value)
def test_an_edited_number_is_caught(folder: Path, path: str, check: str) -> None:
    assert check in tampered(folder, lambda document: nudge(document, path))


EDITS: dict[str, tuple[Callable[[Any], Any], str]] = {
    "status blocked": (lambda d: d.update(status="blocked"), "status"),
    "a gate that failed": (lambda d: d["gates"][0].update(passed=False), "status"),
    "no gates": (lambda d: d.update(gates=[]), "status"),
    "images rejected": (lambda d: d["attacks"][1].update(num_rejected=3), "status"),
    "name": (lambda d: d.update(name="other"), "recipe"),
    "recipe hash": (lambda d: d.update(recipe_hash="0" * 16), "recipe"),
    "norm": (lambda d: d["threat"].update(norm="l2"), "recipe"),
    "backbone": (lambda d: d["model"].update(backbone="resnet50"), "recipe"),
    "no recipe file": (lambda d: d["files"].pop("recipe"), "files"),
    "no checkpoint": (lambda d: d["files"].pop("checkpoint"), "files"),
    "no outcomes": (lambda d: d["files"].pop("outcomes"), "outcomes"),
    "no saved images": (lambda d: d["files"].pop("adversarial"), "outcomes"),
    "checkpoint hash": (lambda d: d["files"]["checkpoint"].update(sha256="0" * 64), "file checkpoint"),
    "recipe file hash": (lambda d: d["files"]["recipe"].update(sha256="0" * 64), "file recipe"),
    "outcomes hash": (lambda d: d["files"]["outcomes"].update(sha256="0" * 64), "file outcomes"),
    "saved images hash": (lambda d: d["files"]["adversarial"].update(sha256="0" * 64), "file adversarial"),
    "missing file": (lambda d: d["files"]["recipe"].update(path="gone.yaml"), "file recipe"),
    "no metrics": (lambda d: d.update(metrics=None), "clean accuracy"),
    "a member less": (lambda d: d["attacks"].pop(), "columns"),
    "a member more": (lambda d: d["attacks"].append({**d["attacks"][1], "name": "pgd-99"}), "columns"),
    "members swapped": (lambda d: d["attacks"].reverse(), "outcomes"),
    "no curve": (lambda d: d.update(curve=[]), "columns"),
    "a curve without its main eps": (lambda d: d["curve"].pop(), "threat models"),
    "no others": (lambda d: d.update(others=[]), "columns"),
    "no union": (lambda d: d.update(union_acc=None), "threat models"),
    "no corruptions": (lambda d: d.update(corruptions=[]), "columns"),
    "a kind less": (lambda d: d["corruptions"][0]["kinds"].pop("contrast_down"), "columns"),
    "no minimum norms": (lambda d: d.update(minimum_norm=None), "columns"),
    "no consistency": (lambda d: d["promises"].update(consistency=None), "promises"),
    "a class less": (lambda d: d["per_class"].pop("7"), "per class"),
    "classes renamed": (lambda d: d["data"].update(classes=list("abcde")), "per class"),
    "classes missing": (lambda d: d["data"].update(classes=["5"]), "outcomes"),
}


@pytest.mark.parametrize("what", EDITS)
def test_an_edited_field_is_caught(folder: Path, what: str) -> None:
    edit, check = EDITS[what]
    assert check in tampered(folder, edit)


def flip(values: np.ndarray, count: int = 1) -> np.ndarray:
    """The first ``count`` that are true become false, or the other way round."""
    changed = values.copy()
    changed[np.flatnonzero(values)[:count]] = False
    return changed


COLUMNS = [
    ("correct", flip, "outcomes"),
    ("robust", lambda values: ~values, "outcomes"),
    ("label", lambda values: (values + 1) % 5, "outcomes"),
    ("prediction", lambda values: (values + 1) % 5, "outcomes"),
    ("row", lambda values: np.zeros_like(values), "outcomes"),
    ("apgd-margin-20/fooled", lambda values: np.ones_like(values), "outcomes"),
    ("apgd-margin-20/attacked", lambda values: np.ones_like(values), "outcomes"),
    ("apgd-margin-20/attacked", lambda values: np.zeros_like(values), "attacks"),
    ("fgsm/prediction", lambda values: np.zeros_like(values), "outcomes"),
    ("fgsm/distance", lambda values: values * 1.1, "outcomes"),
    ("L2 0.4/robust", lambda values: np.ones_like(values), "threat models"),
    ("Linf 0.05/robust", lambda values: np.ones_like(values), "threat models"),
    ("medical/contrast_down/3/correct", lambda values: ~values, "corruptions"),
    ("minimum_norm", lambda values: values * 2, "minimum norms"),
]


@pytest.mark.parametrize(
    ("column", "edit", "check"), COLUMNS, ids=lambda value: None if callable(value) else str(value)[:30]
)
def test_edited_outcomes_are_caught_even_with_a_new_hash(
    folder: Path, column: str, edit: Callable[[np.ndarray], np.ndarray], check: str
) -> None:
    table = pq.read_table(folder / "outcomes.parquet")
    index = table.column_names.index(column)
    values = edit(np.array(table[column].to_pylist()))
    changed = table.set_column(index, column, pa.array(values, table[column].type))
    pq.write_table(changed, folder / "edited.parquet")

    def reseal(document: Any) -> None:
        document["files"]["outcomes"] = {
            "path": "edited.parquet",
            "sha256": sha256_of(folder / "edited.parquet"),
        }

    assert check in tampered(folder, reseal)


def test_outcomes_that_are_changed_in_place_are_caught(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "record")
    with (tmp_path / "record/outcomes.parquet").open("ab") as file:
        file.write(b"\0")
    assert "file outcomes" in failed(check_record(tmp_path / "record/record.json"))


SAVED: dict[str, Callable[[SavedImages], SavedImages]] = {
    "labels": lambda saved: replace(saved, labels=(saved.labels + 1) % 5),
    "predictions": lambda saved: replace(saved, predictions=(saved.predictions + 1) % 5),
    "rows": lambda saved: replace(saved, rows=saved.rows + 10_000),
    "eps": lambda saved: replace(saved, threat=Threat(norm="linf", eps=0.5)),
    "pixels": lambda saved: replace(saved, images=saved.images + 1),
    "size": lambda saved: replace(saved, images=saved.images[:, :, :4]),
}


@pytest.mark.parametrize("what", SAVED)
def test_edited_saved_images_are_caught_even_with_a_new_hash(
    folder: Path, evidence: Evidence, what: str
) -> None:
    path = folder / "edited.safetensors"
    path.unlink(missing_ok=True)
    write_saved_images(path, SAVED[what](evidence.saved))

    def reseal(document: Any) -> None:
        document["files"]["adversarial"] = {"path": path.name, "sha256": sha256_of(path)}

    assert tampered(folder, reseal) == ["saved images"]


def test_other_predictions_than_the_model_s_are_caught(evidence: Evidence, scene: Reexamined) -> None:
    assert scene.check_predictions().passed
    prediction = evidence.columns["prediction"].copy()
    prediction[:2] = (prediction[:2] + 1) % 5
    lying = replace(evidence, columns={**evidence.columns, "prediction": prediction})
    check = replace(scene, evidence=lying).check_predictions()
    assert not check.passed
    assert "2 of 24 clean predictions" in check.detail


@pytest.mark.parametrize("name", ["auroc", "ece"])
def test_other_metrics_than_the_logits_are_caught(evidence: Evidence, scene: Reexamined, name: str) -> None:
    metrics = evidence.record.metrics
    assert metrics is not None
    clean = metrics.clean.model_copy(update={name: getattr(metrics.clean, name) / 2})
    record = evidence.record.model_copy(update={"metrics": metrics.model_copy(update={"clean": clean})})
    check = replace(scene, evidence=replace(evidence, record=record)).check_predictions()
    assert name in check.detail
    assert not check.passed


def test_saved_images_that_do_not_fool_or_leave_the_ball_are_caught(
    evidence: Evidence, scene: Reexamined
) -> None:
    saved = evidence.saved
    assert len(saved.rows) >= 3
    places = np.flatnonzero(np.isin(evidence.columns["row"], saved.rows))
    clean = scene.data.images[places].numpy().astype(np.float32) / 255

    def problem(changed: SavedImages) -> str:
        check = replace(scene, evidence=replace(evidence, saved=changed)).check_adversarial()
        assert not check.passed
        return check.detail

    assert "do not fool the model as claimed" in problem(replace(saved, images=clean))
    far = np.where(saved.images > 0.5, saved.images - 0.3, saved.images + 0.3)
    assert "are not within Linf 0.1" in problem(replace(saved, images=far))
    fewer = {name: getattr(saved, name)[1:] for name in ("images", "rows", "labels", "predictions")}
    assert "images are saved, expected" in problem(replace(saved, **fewer))
    backwards = {name: getattr(saved, name)[::-1].copy() for name in fewer}
    assert "not in the order" in problem(replace(saved, **backwards))


def test_images_that_only_count_as_robust_fall_to_new_attacks(evidence: Evidence, scene: Reexamined) -> None:
    lying = replace(evidence, columns={**evidence.columns, "robust": evidence.columns["correct"]})
    again, gates = replace(scene, evidence=lying).attack_again(24)
    assert "count as robust but fell to new attacks" in again.detail
    assert not again.passed
    assert gates.passed


def test_half_a_point_is_allowed_up_to_chance() -> None:
    for count, total in ((0, 64), (1, 64), (2, 64), (3, 256), (6, 1000), (10, 1000), (15, 1000)):
        allowed = wilson(count, total).low <= 0.005
        assert judge_fallen(count, total, total).passed == allowed
    assert judge_fallen(1, 64, 50).passed
    assert not judge_fallen(4, 64, 50).passed


def test_honest_searches_for_patches_pass_and_one_that_found_less_does_not() -> None:
    assert judge_search(2, 0, 40).passed
    assert judge_search(2, 2, 40).passed
    assert not judge_search(5, 0, 40).passed
    assert judge_search(8, 4, 64).passed
    assert not judge_search(12, 4, 64).passed
    draw, chances = np.random.default_rng(0), np.repeat([0.0, 0.1, 0.5, 0.9, 1.0], [24, 5, 6, 5, 24])
    refused = dict.fromkeys((1.0, 0.3), 0)
    for share in refused:
        for _ in range(400):
            one, other = (draw.random(len(chances)) < chances for _ in range(2))
            # A record whose search found this share of what an honest one finds.
            recorded = draw.random(len(chances)) < share * chances
            fallen, apart = int((one & ~recorded).sum()), int((one != other).sum())
            both = not judge_fallen(fallen, 64, 64).passed and not judge_search(fallen, apart, 64).passed
            refused[share] += both
    assert refused[1.0] <= 8
    assert refused[0.3] >= 360


def test_patches_are_judged_by_how_far_two_searches_differ(evidence: Evidence, scene: Reexamined) -> None:
    threat = Threat(norm="patch", eps=0.2)
    record = evidence.record.model_copy(update={"threat": threat, "gates": []})
    lying = replace(
        evidence, record=record, columns={**evidence.columns, "robust": evidence.columns["correct"]}
    )
    again = replace(scene, evidence=lying).attack_again(24)[0]
    assert not again.passed
    assert "two new searches with other seeds differ in" in again.detail


def test_a_gate_that_is_missing_is_caught(evidence: Evidence, scene: Reexamined) -> None:
    record = evidence.record.model_copy(update={"gates": evidence.record.gates[1:]})
    gates = replace(scene, evidence=replace(evidence, record=record)).attack_again(8)[1]
    assert not gates.passed
    assert f"lacks the gate '{evidence.record.gates[0].name}'" in gates.detail


@pytest.mark.parametrize(
    ("update", "field"),
    [
        ({"source_acc": wilson(100, 180)}, "source_acc"),
        ({"source_acc": None}, "source_acc"),
        ({"source_retention": 0.5}, "source_retention"),
    ],
    ids=str,
)
def test_another_source_accuracy_is_caught(
    evidence: Evidence, target: RunTarget, update: dict[str, Any], field: str
) -> None:
    lying = replace(evidence, record=evidence.record.model_copy(update=update))
    check = check_start(lying, target, [])
    assert not check.passed
    assert field in check.detail


def test_nothing_is_kept_of_a_source_that_the_start_did_not_know(
    evidence: Evidence, target: RunTarget
) -> None:
    """Its head knew as much as chance, of which no share is kept; old records name one, and are verified."""
    knowing = replace(target.start, model=target.model, has_learned=True)
    forgetful = copy.deepcopy(target.model)
    torch.nn.init.zeros_(forgetful.heads["source"].weight)
    source_acc = evidence.record.source_acc
    assert knowing.retention(source_acc) == pytest.approx(1, abs=0.02)
    unknowing = replace(target)
    vars(unknowing)["start"] = replace(knowing, model=forgetful)  # in the place of the cached one
    share = unknowing.start.share_kept(source_acc)
    assert share is not None
    assert share > 2
    assert unknowing.start.retention(source_acc) is None
    adaptability = unknowing.origin(evidence.record.balanced_acc).adaptability
    promises = evidence.record.promises.model_copy(update={"adaptability": adaptability})
    for claimed in (None, share):
        record = evidence.record.model_copy(update={"source_retention": claimed, "promises": promises})
        assert check_start(replace(evidence, record=record), unknowing, []).passed


@pytest.mark.parametrize("field", ["num_params", "num_trained_params"])
def test_another_model_than_described_is_caught(evidence: Evidence, field: str) -> None:
    model = evidence.record.model.model_copy(update={field: 1})
    found = reopen(replace(evidence, record=evidence.record.model_copy(update={"model": model})), None)
    assert not isinstance(found, str)
    assert not found[1].passed
    assert f"model.{field}" in found[1].detail


def test_another_suite_than_named_is_caught(evidence: Evidence, target: RunTarget) -> None:
    record = evidence.record
    suite = record.suite.model_copy(update={"hash": "0" * 16})
    place = next(index for index, attack in enumerate(record.attacks) if attack.name.startswith("apgd"))
    weaker = list(record.attacks)
    settings = {**weaker[place].settings, "steps": 1}
    weaker[place] = weaker[place].model_copy(update={"settings": settings})
    for update in ({"suite": suite}, {"attacks": weaker}):
        check = check_suite(record.model_copy(update=update), target.settings, 5)
        assert isinstance(check, Check)
        assert not check.passed


@pytest.mark.parametrize("field", ["fingerprint", "name", "classes", "split"])
def test_other_images_than_named_are_caught(evidence: Evidence, target: RunTarget, field: str) -> None:
    other: Any = list("abcde") if field == "classes" else "other"
    for name in ("data", "source"):
        claimed = getattr(evidence.record, name).model_copy(update={field: other})
        record = evidence.record.model_copy(update={name: claimed})
        check = check_images(replace(evidence, record=record), target)
        assert not check.passed
        assert f"{name}.{field}" in check.detail


def test_changed_shards_are_caught(
    evidence: Evidence, target: RunTarget, digits: dict[str, Path], tmp_path: Path
) -> None:
    """Even where the manifest goes on saying what it said."""
    path = tmp_path / "shards"
    shutil.copytree(target.shards["target"].path, path)
    shards = ShardSet.open(path)
    assert shards.read_fingerprint() == evidence.record.data.fingerprint
    file = path / shards.manifest.shards[-1].file
    table = pq.read_table(file)
    labels = (np.array(table["label"].to_pylist()) + 1) % 5
    pq.write_table(table.set_column(1, "label", pa.array(labels)), file)
    document = json.loads((path / "manifest.json").read_text())
    document["shards"][-1] |= {"bytes": file.stat().st_size, "sha256": sha256_of(file)}
    (path / "manifest.json").write_text(json.dumps(document))
    forged = ShardSet(path, Manifest.model_validate(document))  # ``open`` would refuse it
    check = check_images(evidence, replace(target, shards={**target.shards, "target": forged}))
    assert not check.passed
    assert re.search(r"'counts\.\w+' says \d+ images of the class '\d', the shards hold \d+", check.detail)


def test_a_swapped_checkpoint_is_caught_even_with_a_new_hash(folder: Path, tmp_path: Path) -> None:
    for name in ("run", "record"):
        shutil.copytree(folder.parent / name, tmp_path / name)
    weights = tmp_path / "run/checkpoint/model.safetensors"
    generator = np.random.default_rng(0)
    tensors = load_file(weights)
    changed = {
        name: (value + 0.3 * value.std() * generator.standard_normal(value.shape)).astype(value.dtype)
        if value.ndim > 1
        else value
        for name, value in tensors.items()
    }
    from safetensors import safe_open

    with safe_open(weights, "np") as file:
        metadata = file.metadata()
    save_file(changed, weights, metadata=metadata)
    assert failed(check_record(tmp_path / "record/record.json")) == ["file checkpoint"]
    document = json.loads((tmp_path / "record/record.json").read_text())
    document["files"]["checkpoint"]["sha256"] = sha256_of(weights)
    (tmp_path / "record/record.json").write_text(json.dumps(document))
    assert [check.name for check in verify_record(tmp_path / "record", num_sampled=8).failed] == ["model"]
    place = tmp_path / "run/checkpoint/state.json"
    state = json.loads(place.read_text())
    place.write_text(json.dumps({**state, "best_sha256": sha256_of(weights)}))
    found = [check.name for check in verify_record(tmp_path / "record", num_sampled=8).failed]
    assert "adversarial images" in found


def test_a_run_needs_no_function(folder: Path) -> None:
    with pytest.raises(UsageError, match="--model is for models from elsewhere"):
        verify_record(folder, model="a:b")


def test_what_is_no_record_is_told(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such file or folder"):
        verify_shallow(tmp_path / "nowhere")
    with pytest.raises(RecordError, match=r"record\.json: no such record"):
        verify_shallow(tmp_path)


def test_a_shallow_check_imports_no_torch(folder: Path) -> None:
    code = (
        "import sys\nfrom temper.cli import main\n"
        "try: main(['verify', sys.argv[1], '--shallow', '--json'])\n"
        "except SystemExit as end: assert not end.code, end.code\n"
        "assert not {'torch', 'ray', 'pandas'} & set(sys.modules)"
    )
    result = subprocess.run(
        [sys.executable, "-c", code, str(folder)], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout)["passed"] is True


def test_the_command_s_exit_code_tells(folder: Path, tmp_path: Path, capsys: Any) -> None:
    from temper.cli import main

    document = json.loads((folder / "record.json").read_text())
    document["robust_acc"]["value"] = 0.99
    (folder / "edited.json").write_text(json.dumps(document))
    with pytest.raises(SystemExit) as end:
        main(["verify", str(folder / "edited.json"), "--shallow"])
    assert end.value.code == 1
    out, err = capsys.readouterr()
    assert "FAILED" in out
    assert "failed: robust accuracy" in err


def test_write_shards_and_read_fingerprint_agree(digits: dict[str, Path], tmp_path: Path) -> None:
    manifest = write_shards(digits["images"], tmp_path / "shards")
    assert ShardSet.open(tmp_path / "shards").read_fingerprint() == manifest.fingerprint
