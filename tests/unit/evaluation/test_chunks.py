"""Evaluating in chunks: nothing depends on how the work is cut, interrupted, or speeded up."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from temper.attacks import APGD, DeepFool, FullFGSM, LastPGD, attack_mode
from temper.errors import ModelError
from temper.evaluation import CascadePlan, ChunkStore, Evaluation, EvaluationPlan, Suite, evaluate_images
from temper.evaluation.chunk import evaluate_chunk
from temper.evaluation.evaluate import prepare
from temper.evaluation.members import AnyMember
from temper.evaluation.store import pack, unpack
from temper.models import folded_copy
from temper.spec import Threat

FIXED = (FullFGSM(), DeepFool(steps=3))
"""Members without randomness, so that the batch an image is in does not matter."""
CPU = torch.device("cpu")


def data(model: nn.Module, count: int = 40) -> tuple[np.ndarray, np.ndarray]:
    """Images with the labels that the model gives them, but for every tenth."""
    images = np.random.default_rng(0).integers(0, 256, (count, 3, 16, 16), dtype=np.uint8)
    with torch.no_grad():
        labels = model(torch.from_numpy(images).float() / 255).argmax(1).numpy()
    labels[::10] = (labels[::10] + 1) % 3
    return images, labels


def plan(members: tuple[AnyMember, ...] = FIXED, **changes: Any) -> EvaluationPlan:
    suite = Suite(name="test", members=members)
    main = CascadePlan(threat=Threat(eps=changes.pop("eps", 0.1)), suite=suite)
    others = tuple(CascadePlan(threat=threat, suite=suite) for threat in changes.pop("others", ()))
    return EvaluationPlan(**{"main": main, "others": others, "seed": 0, **changes})


def evaluate(model: nn.Module, planned: EvaluationPlan, **more: Any) -> Evaluation:
    images, labels = data(more.pop("labeller", model))
    return evaluate_images(
        model, images, labels, np.arange(100, 140), classes=["a", "b", "c"], plan=planned, **more
    )


def robust(evaluation: Evaluation) -> np.ndarray:
    return np.array(evaluation.outcomes["robust"])


def robust_by_suite(evaluation: Evaluation) -> np.ndarray:
    """Without what the gates found: they draw their own points, and only for the main eps."""
    table = evaluation.outcomes
    names = [name for name in table.column_names if name.endswith("/fooled") and "gate-" not in name]
    fooled = [np.array(table[name]) for name in names if name.count("/") == 1]
    return np.array(table["correct"]) & ~np.any(fooled, axis=0)


def test_the_size_of_chunks_and_batches_does_not_matter(model: Any) -> None:
    whole = evaluate(model, plan())
    assert 0 < robust_by_suite(whole).sum() < whole.clean_acc.count
    for changes in ({"chunk_size": 7}, {"chunk_size": 16, "batch_size": 3}):
        other = evaluate(model, plan(**changes))
        assert np.array_equal(robust_by_suite(other), robust_by_suite(whole))


def test_a_stored_chunk_is_not_attacked_again_and_gives_the_same(model: Any, tmp_path: Path) -> None:
    planned = plan((LastPGD(steps=3, rel_stepsize=0.5, restarts=2),), chunk_size=16)
    undisturbed = evaluate(model, planned)
    done: list[int] = []

    def interrupt(member: str, start: int, *progress: Any) -> None:
        done.append(start)
        if start == 32:
            raise KeyboardInterrupt

    store = ChunkStore(tmp_path / "evaluation", {"plan": planned.hash})
    with pytest.raises(KeyboardInterrupt):
        evaluate(model, planned, store=store, on_progress=interrupt)
    assert set(done) == {0, 16, 32}, "the first image of each chunk"
    assert store.read(1) is not None
    assert store.read(2) is None
    seen: list[int] = []
    resumed = evaluate(
        model, planned, store=store, on_progress=lambda member, start, *rest: seen.append(start)
    )
    assert set(seen) == {32}
    assert str(resumed.outcomes.to_pylist()) == str(undisturbed.outcomes.to_pylist())
    assert resumed.num_forward == undisturbed.num_forward, "what the stored chunks cost is counted, once"
    store._path(1).write_bytes(b"damaged")
    assert store.read(1) is None
    assert ChunkStore(tmp_path / "evaluation", {"plan": "another"}).read(0) is None
    store.clear()
    assert not list(tmp_path.iterdir())


def test_packing_keeps_everything(model: Any) -> None:
    images, labels = data(model)
    planned = plan(others=(Threat(norm="l2", eps=3),), corruptions=("medical",), minimum_norms=True)
    prepared, kept = prepare(images, labels, planned)
    found = evaluate_chunk(model, prepared, torch.arange(40), kept, planned, 0, CPU)
    content = pack(found)
    assert pack(unpack(content)) == content
    again = unpack(content)
    assert torch.equal(again.cascades[1].adversarial, found.cascades[1].adversarial)
    assert again.cascades[0].records() == found.cascades[0].records()
    assert again.passes == found.passes


def test_robust_accuracy_falls_with_eps_and_costs_less_than_every_eps_alone(model: Any) -> None:
    levels = (0.02, 0.05, 0.1, 0.15, 0.2)
    alone = [evaluate(model, plan(eps=eps)) for eps in levels]
    curve = evaluate(model, plan(curve=levels))
    assert [point.eps for point in curve.curve] == list(levels)
    counts = [point.robust_acc.count for point in curve.curve]
    assert counts == sorted(counts, reverse=True)
    assert all(ours <= robust_by_suite(one).sum() for ours, one in zip(counts, alone, strict=True))
    assert curve.robust_acc == curve.curve[2].robust_acc
    assert curve.attacks[0].name == "carried"
    assert sum(num_attacked(curve)) < sum(sum(num_attacked(one)) for one in alone)


def num_attacked(evaluation: Evaluation) -> list[int]:
    table = evaluation.outcomes
    names = [name for name in table.column_names if name.endswith("/attacked")]
    names = [name for name in names if "carried" not in name and "gate-" not in name]
    return [int(np.array(table[name]).sum()) for name in names]


def test_the_union_over_norms_is_what_stands_in_all_of_them(model: Any) -> None:
    evaluation = evaluate(model, plan(others=(Threat(norm="l2", eps=3),)))
    other = np.array(evaluation.outcomes["L2 3/robust"])
    assert evaluation.others[0].robust_acc.count == other.sum()
    assert evaluation.union_acc is not None
    assert evaluation.union_acc.count == (other & robust(evaluation)).sum()
    assert evaluate(model, plan()).union_acc is None


def test_minimum_norms_agree_with_the_attacks(model: Any) -> None:
    evaluation = evaluate(model, plan((APGD(loss="margin", steps=20),), minimum_norms=True))
    norms = np.array(evaluation.outcomes["minimum_norm"])
    correct = np.array(evaluation.outcomes["correct"])
    fallen = correct & ~robust(evaluation)
    assert (norms[~correct] == 0).all()
    assert (norms[fallen] <= 0.1 + 1e-5).all()
    assert (norms[robust(evaluation)] > 0).all()
    assert evaluation.minimum_norm is not None
    middle = np.sort(norms[correct])[correct.sum() // 2]
    assert evaluation.minimum_norm.median == pytest.approx(middle, rel=1e-5)
    assert evaluation.minimum_norm.num_images == correct.sum()


def test_corruptions_are_reported_as_their_outcomes_say(model: Any) -> None:
    evaluation = evaluate(model, plan(corruptions=("medical",), chunk_size=16))
    record = evaluation.corruptions[0]
    columns = [name for name in evaluation.outcomes.column_names if name.startswith("medical/")]
    assert len(columns) == 5 * len(record.kinds)
    means = [np.array(evaluation.outcomes[name]).mean() for name in columns]
    assert record.mean_acc == pytest.approx(np.mean(means))
    assert evaluate(model, plan(corruptions=("medical",))).corruptions == evaluation.corruptions


class Wrapped(nn.Module):
    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner


def test_restarts_are_stacked_when_few_images_stand(model: Any) -> None:
    calls: list[int] = []

    class Counting(Wrapped):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            calls.append(len(images))
            logits: torch.Tensor = self.inner(images)
            return logits

    planned = plan((LastPGD(steps=2, rel_stepsize=0.5, restarts=4),), eps=0.0001, batch_size=256)
    prepared, kept = prepare(*data(model), planned)
    evaluate_chunk(Counting(model), prepared, torch.arange(40), kept, planned, 0, CPU)
    assert 4 * 36 in calls, "36 images are classified correctly"


class Broken(Wrapped):
    """NaN for bright images."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        bright = images.flatten(1).mean(1) > 0.5
        return torch.where(bright[:, None], torch.nan, self.inner(images))


def test_an_answer_that_is_no_number_is_wrong_and_blocks(model: Any) -> None:
    evaluation = evaluate(Broken(model), plan(), labeller=model)
    images, _ = data(model)
    bright = images.reshape(40, -1).mean(1) / 255 > 0.5
    assert 0 < bright.sum() < 40
    assert not np.array(evaluation.outcomes["correct"])[bright].any()
    assert (np.array(evaluation.outcomes["prediction"])[bright] == -1).all()
    assert evaluation.status == "blocked"
    assert "finite logits" in [gate.name for gate in evaluation.gates if not gate.passed]


def test_what_is_no_model_is_refused(model: Any) -> None:
    answer = r"returned \(30720,\) of float32 for 40 images; expected logits \(40, classes\)"
    with pytest.raises(ModelError, match=answer):
        evaluate(nn.Flatten(start_dim=0), plan(), labeller=model)


def test_the_twin_is_folded_and_answers_the_same(model: Any) -> None:
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(4, 3, 16, 16, generator=generator)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.uniform_(-1, 1, generator=generator)
            module.running_var.uniform_(0.5, 2, generator=generator)
    twin = folded_copy(model, images)
    assert twin is not model
    assert nn.BatchNorm2d not in [type(module) for module in twin.modules()]
    assert torch.allclose(twin(images), model(images), atol=1e-4)
    with attack_mode(model):
        assert not any(parameter.requires_grad for parameter in twin.parameters())
    plain = nn.Sequential(nn.Flatten(), nn.Linear(3 * 16 * 16, 2)).eval()
    assert folded_copy(plain, images) is plain


class Moody(Wrapped):
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.inner(images)
        return logits + torch.rand(len(images), 1)


def test_a_twin_that_answers_otherwise_is_thrown_away(model: Any) -> None:
    moody = Moody(model).eval()
    assert folded_copy(moody, torch.rand(4, 3, 16, 16)) is moody


def test_kept_examples_are_those_that_fooled(model: Any) -> None:
    evaluation = evaluate(model, plan())
    kept = evaluation.adversarial
    assert len(kept.rows) == 36 - evaluation.robust_acc.count
    with torch.no_grad():
        answered = model(kept.images).argmax(1).numpy()
    assert np.array_equal(answered, kept.prediction)
    assert (answered != kept.labels).all()
    assert float((kept.images - kept.clean.float() / 255).abs().max()) <= 0.1 + 1e-5


def test_passes_are_those_of_the_attacks_and_no_more(model: Any) -> None:
    """Each image that stands costs its steps once, and one look at what came back."""
    member = LastPGD(steps=50, rel_stepsize=0.1)
    evaluation = evaluate(model, plan((FullFGSM(), member), eps=0.03))
    fgsm, pgd = (evaluation.attacks[index].num_attacked for index in (0, 1))
    assert 0 < pgd <= fgsm
    images, labels = data(model)
    planned = plan((FullFGSM(), member), eps=0.03)
    prepared, kept = prepare(images, labels, planned)
    found = evaluate_chunk(model, prepared, torch.arange(40), kept, planned, 0, CPU)
    total = 40 + (1 + 1) * fgsm + (50 + 1) * pgd
    assert found.passes.num_backward == fgsm + 50 * pgd
    assert found.passes.num_forward == total
