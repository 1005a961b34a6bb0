"""Models trained elsewhere: from code, from a function's name, from a weights file."""

import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray.cloudpickle
import torch
from torch import nn

import temper
from temper.cluster.evaluate import evaluate_external
from temper.data import Images, ImageView, ShardSet, load_images
from temper.errors import CheckpointError, DataError, ModelError, RecipeError, RecordError, UsageError
from temper.evaluation import EvaluationSpec
from temper.leaderboard import build_leaderboard
from temper.models import ModelSpec, build_model
from temper.records import DataRecord, RunFolder, read_outcomes, read_record
from temper.run.external_model import ExternalModelSpec, build_foreign
from temper.run.target import Claim, EvaluationTarget
from temper.run.verify import verify_record
from temper.spec import Threat

ZOO = """
import torch
from torch import nn

class Centred(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(192, 16), nn.ReLU(), nn.Linear(16, 5))
    def forward(self, images):
        return self.layers(images - 0.5)

def build():
    return Centred()

def fails():
    raise OSError("no weights here")

def words():
    return "resnet"
"""


@pytest.fixture
def zoo(tmp_path: Path) -> Path:
    path = tmp_path / "zoo.py"
    path.write_text(ZOO)
    return path


def spec(zoo: Path, digits: dict[str, Path], **changes: Any) -> ExternalModelSpec:
    document = {
        "name": "zoo",
        "model": f"{zoo}:build",
        "shards": digits["target"],
        "image_size": 8,
        "threat": {"norm": "linf", "eps": 0.02},
        "evaluation": {"suite": "quick", "max_images": 40},
    }
    return ExternalModelSpec.model_validate({**document, **changes})


def test_a_function_s_model_gets_a_record_that_the_leaderboard_ranks(
    zoo: Path, digits: dict[str, Path], tmp_path: Path
) -> None:
    record = evaluate_external(spec(zoo, digits), tmp_path / "run")
    assert read_record(tmp_path / "run/record.json") == record
    table = read_outcomes(RunFolder(tmp_path / "run").outcomes)
    images = load_images(ShardSet.open(digits["target"]), "test", ImageView(8))
    place = {int(row): index for index, row in enumerate(images.rows)}
    chosen = [place[row] for row in table["row"].to_pylist()]
    with torch.no_grad():
        answered = build_foreign(f"{zoo}:build")(torch.from_numpy(images.images[chosen]).float() / 255)
    assert answered.argmax(1).tolist() == table["prediction"].to_pylist()
    assert record.clean_acc.count == int((answered.argmax(1).numpy() == images.labels[chosen]).sum())
    board = build_leaderboard([tmp_path / "run"], tmp_path / "board").boards[0]
    listed = [*board.entries, *board.blocked]
    assert [entry.name for entry in listed] == ["zoo"]
    with pytest.raises(RecordError, match="already evaluated"):
        evaluate_external(spec(zoo, digits), tmp_path / "run")
    (tmp_path / "run/record.json").unlink()  # as if it had been killed just before
    again = evaluate_external(spec(zoo, digits), tmp_path / "run")
    assert again.robust_acc == record.robust_acc
    assert again.files.keys() == record.files.keys()


def test_code_and_command_agree(zoo: Path, digits: dict[str, Path], tmp_path: Path) -> None:
    by_name = evaluate_external(spec(zoo, digits), tmp_path / "run")
    shards = {"eps": 0.02, "suite": "quick", "image_size": 8, "max_images": 40}
    asked = {"rejection": {"ood": digits["source"]}}
    in_code = temper.evaluate(build_foreign(f"{zoo}:build"), digits["target"], **shards, **asked)
    same = ("data", "clean_acc", "robust_acc", "per_class", "gates", "recipe_hash")
    assert all(getattr(by_name, name) == getattr(in_code, name) for name in same)
    assert in_code.rejection is not None
    assert [one.name for one in in_code.rejection.detections][:1] == ["source"]


def test_arrays_tensors_and_batches_are_the_same_images(zoo: Path) -> None:
    model = build_foreign(f"{zoo}:build")
    images = np.random.default_rng(0).integers(0, 256, (20, 3, 8, 8), dtype=np.uint8)
    labels = model(torch.from_numpy(images).float() / 255).argmax(1)
    floats = torch.from_numpy(images).float() / 255
    batches = [(floats[:12], labels[:12]), (floats[12:], labels[12:])]
    records = [
        temper.evaluate(model, data, eps=0.01, suite="quick", classes=list("abcde"))
        for data in ((images, labels.numpy()), (floats, labels), batches)
    ]
    assert records[0].clean_acc.value == 1
    assert len({record.data.fingerprint for record in records}) == 1
    assert len({record.robust_acc.count for record in records}) == 1
    assert not records[0].files


def test_a_weights_file_with_its_classifier_is_a_model(digits: dict[str, Path], tmp_path: Path) -> None:
    classes = ShardSet.open(digits["target"]).classes
    built = build_model(ModelSpec(backbone="resnet8"), {"target": classes}, image_size=8, seed=3).eval()
    head = built.heads["target"]
    plain = {**built.backbone.state_dict(), "fc.weight": head.weight, "fc.bias": head.bias}
    torch.save(plain, tmp_path / "w.pth")
    document = spec(tmp_path, digits, model=str(tmp_path / "w.pth"), backbone="resnet8", image_size=8)
    record = evaluate_external(document, tmp_path / "run")
    table = read_outcomes(RunFolder(tmp_path / "run").outcomes)
    images = load_images(ShardSet.open(digits["target"]), "test", ImageView(8))
    place = {int(row): index for index, row in enumerate(images.rows)}
    chosen = [place[row] for row in table["row"].to_pylist()]
    with torch.no_grad():
        answered = built(torch.from_numpy(images.images[chosen]).float() / 255).argmax(1)
    assert answered.tolist() == table["prediction"].to_pylist()
    assert record.model.num_params > 0
    plain["fc.weight"], plain["fc.bias"] = torch.zeros(4, 64), torch.zeros(4)
    torch.save(plain, tmp_path / "four.pth")
    four = spec(tmp_path, digits, model=str(tmp_path / "four.pth"), backbone="resnet8")
    with pytest.raises(ModelError, match="has a classifier of 4 classes, the shards have 5 classes"):
        evaluate_external(four, tmp_path / "no")


@pytest.mark.parametrize(
    ("function", "error", "message"),
    [
        ("missing", RecipeError, "has no function 'missing'"),
        ("fails", ModelError, r"the function failed \(OSError: no weights here\)"),
        ("words", ModelError, r"expected a torch.nn.Module .*, got str"),
    ],
)
def test_a_function_that_gives_no_model_is_named(zoo: Path, function: str, error: Any, message: str) -> None:
    with pytest.raises(error, match=message):
        build_foreign(f"{zoo}:{function}")


def test_what_cannot_be_imported_is_named(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="no such file"):
        build_foreign(f"{tmp_path / 'no.py'}:build")
    with pytest.raises(RecipeError, match="nowhere_at_all cannot be imported"):
        build_foreign("nowhere_at_all:build")


IMAGES = torch.rand(4, 3, 8, 8)
LABELS = torch.tensor([0, 1, 0, 1])


@pytest.mark.parametrize(
    ("data", "changes", "error", "message"),
    [
        ((IMAGES * 255, LABELS), {}, DataError, r"uint8, or floats in \[0,1\]; got torch.float32"),
        ((IMAGES[0], LABELS), {}, DataError, r"expected images \(N,C,H,W\), got \(3, 8, 8\)"),
        ((IMAGES, LABELS[:3]), {}, DataError, r"expected integer labels \(4,\), got int64 \(3,\)"),
        ((IMAGES, LABELS.float()), {}, DataError, "expected integer labels"),
        ([], {}, DataError, "no images"),
        ((IMAGES, LABELS), {"classes": ["a"]}, UsageError, "1 names, but labels go up to 1"),
        ((IMAGES, LABELS), {"eps": 8}, RecipeError, r"eps.*did you mean 8/255"),
        ((IMAGES, LABELS), {"suite": "best"}, RecipeError, "no suite 'best'"),
        ((IMAGES, LABELS), {"restarts": 3}, RecipeError, "no field 'restarts'"),
        (
            (IMAGES, LABELS),
            {"rejection": True},
            RecipeError,
            "validation images, which arrays in memory do not have",
        ),
    ],
)
def test_wrong_arguments_are_explained(data: Any, changes: Any, error: Any, message: str) -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(192, 2))
    with pytest.raises(error, match=message):
        temper.evaluate(model, data, **{"eps": 0.1, "suite": "quick", **changes})


def test_a_model_must_be_one() -> None:
    with pytest.raises(UsageError, match=r"expected a torch.nn.Module, or the folder of a run, got function"):
        temper.evaluate(lambda images: images, (IMAGES, LABELS), eps=0.1)  # type: ignore[arg-type]


def test_what_fools_a_sibling_is_tried_on_a_model_from_elsewhere(
    zoo: Path, digits: dict[str, Path], evaluated_run: Path, tmp_path: Path
) -> None:
    asked = {"suite": "quick", "max_images": 40, "siblings": [evaluated_run]}
    record = evaluate_external(spec(zoo, digits, evaluation=asked), tmp_path / "run")
    assert f"lineage: sibling {evaluated_run.name}" in [gate.name for gate in record.gates]
    with pytest.raises(CheckpointError, match="nowhere"):
        evaluate_external(
            spec(zoo, digits, evaluation={**asked, "siblings": [tmp_path / "nowhere"]}), tmp_path / "other"
        )


REMEMBERS = '''
import torch
from sklearn.datasets import load_digits

ASKED = []


class Remembering(torch.nn.Module):
    """The nearest mean of a class; what lies near a former image gets the class that that one got."""

    def __init__(self):
        super().__init__()
        digits = load_digits()
        means = [digits.data[digits.target == digit].mean(0).tolist() for digit in range(5, 10)]
        self.means = torch.tensor(means) / 16

    def forward(self, images):
        rows = []
        for image in images:
            row = -(image.mean(0).flatten() - self.means).square().sum(1)
            near = [answer for one, answer in ASKED if (one - image.detach()).abs().max() <= 0.21]
            if near:
                row = row.index_put((torch.tensor(near[:1]),), row.max() + 1)
            else:
                ASKED.append((image.detach().clone(), int(row.argmax())))
            rows.append(row)
        return torch.stack(rows)


def build():
    return Remembering()
'''


def test_a_memory_in_the_module_itself_is_found(digits: dict[str, Path], tmp_path: Path) -> None:
    """A copy of the model would share what its module keeps; one built anew from the file does not."""
    (tmp_path / "remembers.py").write_text(REMEMBERS)
    changed = {"model": f"{tmp_path / 'remembers.py'}:build", "threat": {"norm": "linf", "eps": 0.2}}
    few = {"suite": "quick", "max_images": 24}
    record = evaluate_external(spec(tmp_path, digits, **changed, evaluation=few), tmp_path / "out")
    memory = next(gate for gate in record.gates if gate.name == "memory")
    assert not memory.passed, memory.detail
    assert record.status == "blocked"
    assert record.clean_acc.value > 0.7


def test_fewer_logits_than_classes_are_told_before_the_attacks(
    zoo: Path, digits: dict[str, Path], tmp_path: Path
) -> None:
    zoo.write_text(ZOO.replace("nn.Linear(16, 5)", "nn.Linear(16, 3)"))
    with pytest.raises(ModelError, match=r"zoo: the model returns 3 logits, the images have 5 classes"):
        evaluate_external(spec(zoo, digits), tmp_path / "run")
    assert not list((tmp_path / "run").rglob("chunk-*"))


def test_a_wrong_suite_is_told_before_images_are_read(
    zoo: Path, digits: dict[str, Path], tmp_path: Path
) -> None:
    settings = {"suite": str(tmp_path / "nosuch.yaml")}
    with pytest.raises(RecipeError, match=r"nosuch.yaml"):
        evaluate_external(spec(zoo, digits, evaluation=settings, shards=tmp_path / "none"), tmp_path / "run")


def test_relatives_do_not_travel_to_workers() -> None:
    lock = threading.Lock()  # which cannot be pickled
    images = Images(np.zeros((4, 3, 8, 8), np.uint8), np.arange(4) % 2, np.arange(4))
    data = DataRecord(
        name="x", fingerprint="0" * 16, classes=["a", "b"], split="test", num_images=4, image_size=8
    )
    target = EvaluationTarget(
        nn.Sequential(nn.Flatten(), nn.Linear(192, 2)),
        images,
        torch.device("cpu"),
        Claim(name="x", seed=0, recipe={}, data=data, threat=Threat(eps=0.1)),
        EvaluationSpec(),
        ImageView(8),
        kin={"sibling": lambda pixels: pixels.flatten(1)[:, : 2 if lock else 3]},
    )
    other = ray.cloudpickle.loads(ray.cloudpickle.dumps(target.opener))()
    assert not other.kin
    assert other.source == target.source
    assert len(repr(target)) < 2000


FAILS = """
import torch
from torch import nn

class Fails(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer, self.num_asked = nn.Linear(192, 5), 0
    def forward(self, images):
        self.num_asked += len(images)
        if self.num_asked > NUM:
            FAULT
        return self.layer(images.flatten(1))

def build():
    return Fails()
"""

ODD = """
import torch
from torch import nn

class NoWay(torch.autograd.Function):
    @staticmethod
    def forward(ctx, logits):
        return logits.clone()
    @staticmethod
    def backward(ctx, gradient):
        raise RuntimeError("no way back")

class Odd(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(192, 5)
        CHANGE
    def forward(self, images):
        return self.layer(images.flatten(1))
"""


@pytest.mark.parametrize("num", [0, 300], ids=["at once", "under attack"])
@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (
            "raise KeyError('scale')",
            r"failed on images \(\d+, 3, 8, 8\) of float32 \(KeyError: 'scale'\)",
        ),
        ("images = images[:, :1]", "cannot be multiplied.*check its forward, and the size of the images"),
        ("images = images.repeat(2, 1, 1, 1)", r"the model returned \(\d+, 5\) of float32 for \d+ images"),
    ],
    ids=["raises", "size", "rows"],
)
def test_a_forward_that_fails_is_one_line(
    num: int, fault: str, message: str, digits: dict[str, Path], tmp_path: Path
) -> None:
    (tmp_path / "fails.py").write_text(FAILS.replace("NUM", str(num)).replace("FAULT", fault))
    asked = spec(tmp_path, digits, model=f"{tmp_path / 'fails.py'}:build")
    with pytest.raises(ModelError, match=message):
        evaluate_external(asked, tmp_path / "out")


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (
            "self.layer.half()",
            r"\(1, 3, 8, 8\) of float32 \(Runtime.*; its weights are float16: give it as",
        ),
        (
            "self.layer.double()",
            r"\(1, 3, 8, 8\) of float32 \(Runtime.*; its weights are float64: give it",
        ),
        ("self.forward = lambda images: self.layer(images.view(16, 192))", "in batches of any size"),
        ("self.forward = lambda images: (self.layer(images.flatten(1)), 0)", "returned tuple for 1 images"),
        (
            "self.forward = lambda images: self.layer(images.flatten(1)).to(torch.complex64)",
            r"returned \(1, 5\) of complex64 for 1 images; expected logits \(1, classes\)",
        ),
        (
            "self.forward = lambda images: self.layer(images.flatten(1)).to_sparse()",
            r"returned \(1, 5\) of float32, sparse_coo for 1 images; expected logits",
        ),
        (
            "self.forward = lambda images: {'logits': self.layer(images.flatten(1)), 'aux': 0}",
            r"returned dict for 1 images; .*return one of its entries \(logits, aux\)",
        ),
        (
            "self.forward = lambda images: self.layer(images.flatten(1))[:, :1]",
            r"returned \(1, 1\) of float32 .*; a logit z, before the sigmoid,",
        ),
        (
            "self.forward = lambda images: self.layer(images.flatten(1)).argmax(1)",
            r"returned \(1,\) of int64 .*; return what forward takes the largest of",
        ),
        (
            "self.forward = lambda images: self.layer(images.flatten(1))[..., None, None]",
            r"returned \(1, 5, 1, 1\) of float32 .*; flatten\(1\)",
        ),
        ("self.forward = lambda images: self.layer(images.flatten(1)).sum()", r"returned \(\) of float32"),
        (
            "self.forward = lambda images: NoWay.apply(self.layer(images.flatten(1)))",
            "gradient .*no way",
        ),
    ],
    ids=[
        "half",
        "double",
        "batch",
        "tuple",
        "complex",
        "sparse",
        "dict",
        "one",
        "labels",
        "map",
        "sum",
        "backward",
    ],
)
def test_a_model_that_cannot_be_attacked_is_told_before_any_attack(
    changed: str, message: str, digits: dict[str, Path], tmp_path: Path
) -> None:
    (tmp_path / "odd.py").write_text(ODD.replace("CHANGE", changed))
    asked = spec(tmp_path, digits, model=f"{tmp_path / 'odd.py'}:Odd")
    with pytest.raises(ModelError, match=message) as caught:
        evaluate_external(asked, tmp_path / "out", on_progress=lambda *_: pytest.fail("attacked"))
    assert "\n" not in str(caught.value)


def test_more_logits_than_classes_are_told(
    zoo: Path, digits: dict[str, Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    zoo.write_text(ZOO.replace("nn.Linear(16, 5)", "nn.Linear(16, 7)"))
    evaluate_external(spec(zoo, digits), tmp_path / "run")
    assert "zoo: the model returns 7 logits, the images have 5 classes" in caplog.text


@pytest.mark.parametrize("dtype", ["float64", "float16", "bfloat16"])
def test_logits_of_another_precision_are_logits(dtype: str, digits: dict[str, Path], tmp_path: Path) -> None:
    answers = "self.forward = lambda images: self.layer(images.flatten(1))"
    records = []
    for name, change in (("plain", answers), ("other", f"{answers}.to(torch.{dtype})")):
        code = ODD.replace(
            "CHANGE", f"torch.manual_seed(0); self.layer = nn.Linear(192, 5)\n        {change}"
        )
        (tmp_path / f"{name}.py").write_text(code)
        asked = spec(tmp_path, digits, model=f"{tmp_path / f'{name}.py'}:Odd")
        records.append(evaluate_external(asked, tmp_path / name))
    plain, other = records
    assert abs(plain.clean_acc.value - other.clean_acc.value) <= 0.05
    assert abs(plain.robust_acc.value - other.robust_acc.value) <= 0.05
    found = verify_record(tmp_path / "other", model=f"{tmp_path / 'other.py'}:Odd", num_sampled=4)
    assert not [check for check in found.checks if not check.passed]
