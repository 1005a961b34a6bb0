"""What tells one model's chunks from another's: digests of code and weights, and asking again."""

import shutil
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from tests.unit.ended_early import Killed, ends_after

import temper
from temper.errors import RecordError
from temper.evaluation.store import unpack
from temper.records import EvaluationRecord, RunFolder, read_record, read_sources
from temper.run.external_code import digest_of_code
from temper.run.target import digest_of_model
from temper.run.verify import verify_record
from temper.verification import verify_shallow

CHUNKS = {"suite": "quick", "eps": 0.02, "image_size": 8, "max_images": 40, "chunk_size": 10}


class Means(torch.nn.Module):
    """The nearest mean of a class; ``kind`` shows in no weight and in no structure.

    ``rounds``: perturbations of less than half a sixteenth are rounded away, which changes no clean image and
    no gradient. ``errs``: answers wrongly where a pixel is no multiple of 1/255, as after an attack.
    """

    def __init__(self, kind: Literal["plain", "rounds", "errs"] = "plain") -> None:
        super().__init__()
        digits, self.kind = load_digits(), kind
        means = np.stack([digits.data[digits.target == digit].mean(0) for digit in range(5, 10)])
        self.means = torch.nn.Parameter(torch.from_numpy(means).float() / 16)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        if self.kind == "rounds":
            rounded = ((images * 16).round() / 16 * 255).round() / 255
            images = images + (rounded - images).detach()
        logits = -20 * (images.mean(1).flatten(1)[:, None] - self.means).square().sum(2)
        if self.kind == "errs":
            is_odd = ((images * 255).round() - images * 255).abs().flatten(1).amax(1) > 0.01
            logits = torch.where(is_odd[:, None], logits.roll(1, 1), logits)
        return logits


def evaluated(
    model: torch.nn.Module, digits: dict[str, Path], out: Path, kill_after: float = float("inf")
) -> EvaluationRecord:
    return temper.evaluate(model, digits["target"], out=out, on_progress=ends_after(kill_after), **CHUNKS)


def killed(model: torch.nn.Module, digits: dict[str, Path], out: Path) -> Path:
    """The first chunk, of an evaluation that ended in its second."""
    with pytest.raises(Killed):
        evaluated(model, digits, out, kill_after=4)
    (chunk,) = out.rglob("chunk-00000.safetensors")
    return chunk


def fell(record: EvaluationRecord) -> list[tuple[str, int]]:
    """How many images to which attack."""
    return [(attack.name, attack.num_fooled) for attack in record.attacks]


@pytest.mark.parametrize(
    ("first", "then"),
    [("plain", "rounds"), ("rounds", "plain"), ("plain", "errs")],
    ids=["to a better one", "to a worse one", "seen by adversarial examples alone"],
)
def test_a_model_that_differs_on_perturbed_images_alone_takes_no_chunk_up(
    first: Any, then: Any, digits: dict[str, Path], tmp_path: Path
) -> None:
    fresh = evaluated(Means(then), digits, tmp_path / "fresh")
    other = evaluated(Means(first), digits, tmp_path / "other")
    assert other.clean_acc == fresh.clean_acc
    assert other.robust_acc != fresh.robust_acc
    chunk = killed(Means(first), digits, tmp_path / "run")
    (cascade,) = unpack(chunk.read_bytes()).cascades
    assert first == "rounds" or (cascade.kept & ~cascade.standing).any()
    resumed = evaluated(Means(then), digits, tmp_path / "run")
    assert (resumed.robust_acc, fell(resumed)) == (fresh.robust_acc, fell(fresh))


def test_a_chunk_of_another_model_that_was_put_among_the_chunks_is_not_taken_up(
    digits: dict[str, Path], tmp_path: Path
) -> None:
    other = Means()
    with torch.no_grad():
        other.means += 1e-6  # too little to show in its answers
    model = Means()
    shutil.copy(killed(other, digits, tmp_path / "other"), killed(model, digits, tmp_path / "run"))
    evaluated(model, digits, tmp_path / "run")
    (source,) = {one.model for one in read_sources(RunFolder(tmp_path / "run").sources).chunks}
    assert source.weights == digest_of_model(model)


@pytest.fixture
def mixed(digits: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A record of two models, as made by who takes up whatever lies there."""
    monkeypatch.setattr("temper.run.evaluate.drop_outdated", lambda *_: None)
    other, model = Means("rounds"), Means()
    with torch.no_grad():
        other.means += 1e-6
    shutil.copy(killed(other, digits, tmp_path / "other"), killed(model, digits, tmp_path / "run"))
    evaluated(model, digits, tmp_path / "run")
    return tmp_path / "run"


def test_a_record_of_two_models_is_caught_without_the_model(mixed: Path) -> None:
    for found in (verify_shallow(mixed), verify_record(mixed)):
        assert [check.name for check in found.failed] == ["chunks"]
        (failed,) = found.failed
        assert "more than one model answered: 1 of weights " in failed.detail
        assert ", then 3 of weights " in failed.detail
        assert "1 chunks are of other weights than recipe_hash" in failed.detail


def test_chunks_that_leave_images_out_or_are_gone_are_caught(digits: dict[str, Path], tmp_path: Path) -> None:
    evaluated(Means(), digits, tmp_path / "run")
    run = RunFolder(tmp_path / "run")
    record = read_record(run.record)
    assert verify_shallow(run.path).passed
    text = run.sources.read_text()
    run.sources.write_text(text.replace('"num_images": 10', '"num_images": 9', 1))
    failed = {check.name: check.detail for check in verify_shallow(run.path).failed}
    assert failed.keys() == {"file chunks", "chunks"}
    assert "data.num_images is 40 in the record, 39 was found" in failed["chunks"]
    run.sources.unlink()
    assert {check.name for check in verify_shallow(run.path).failed} == {"file chunks", "chunks"}
    older = {name: file for name, file in record.files.items() if name != "chunks"}
    run.record.write_text(record.model_copy(update={"files": older}).model_dump_json())
    found = verify_shallow(run.path)
    assert found.passed
    assert "that one model answered for all images" in found.not_checked[-1]
    with pytest.raises(RecordError, match=r"chunks\.json: no such file"):
        read_sources(run.sources)


def test_the_digest_of_code_is_over_the_file_and_what_it_imports_beside_it(tmp_path: Path) -> None:
    (tmp_path / "zoo.py").write_text("import torch\nimport layers\nfrom blocks.conv import conv\n")
    (tmp_path / "layers.py").write_text("def f():\n    import late\n")
    (tmp_path / "blocks").mkdir()
    for name in ("late.py", "blocks/__init__.py", "blocks/conv.py", "other.py"):
        (tmp_path / name).write_text("conv = 1\n")
    before = digest_of_code(f"{tmp_path / 'zoo.py'}:build")
    (tmp_path / "other.py").write_text("conv = 2\n")
    assert digest_of_code(f"{tmp_path / 'zoo.py'}:build") == before
    shutil.copytree(tmp_path, tmp_path / "elsewhere")
    assert digest_of_code(f"{tmp_path / 'elsewhere/zoo.py'}:build") == before
    seen = {before}
    for name in ("zoo.py", "layers.py", "late.py", "blocks/conv.py"):
        with (tmp_path / name).open("a") as file:
            file.write("# changed\n")
        seen.add(digest_of_code(f"{tmp_path / 'zoo.py'}:build"))
    assert len(seen) == 5


def test_the_digest_of_code_of_a_module_is_over_its_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "some_zoo").mkdir()
    for name in ("__init__.py", "nets.py", "parts.py"):
        (tmp_path / "some_zoo" / name).write_text("x = 1\n")
    monkeypatch.syspath_prepend(tmp_path)
    before = digest_of_code("some_zoo.nets:build")
    (tmp_path / "some_zoo/parts.py").write_text("x = 2\n")
    assert digest_of_code("some_zoo.nets:build") != before


def test_an_address_in_a_structure_tells_no_model_from_another() -> None:
    class Shown(torch.nn.Module):
        def extra_repr(self) -> str:
            return repr(lambda: None)

    assert digest_of_model(Shown()) == digest_of_model(Shown())
