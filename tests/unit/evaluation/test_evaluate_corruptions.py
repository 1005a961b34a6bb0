"""Accuracy under corruptions, and its record."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from temper.errors import DataError, ModelError, UsageError
from temper.evaluation.corruptions import (
    CORRUPTIONS,
    MEDICAL,
    CorruptionResult,
    evaluate_corruptions,
)
from temper.records import CorruptionRecord

LEVELS = (56, 82, 97, 120, 153, 160)
LABELS = np.array([0, 0, 0, 0, 1, 0])


def is_bright(images: Tensor) -> Tensor:
    """Class 1 where the mean is above 0.5."""
    mean = images.mean((1, 2, 3))
    return torch.stack([0.5 - mean, mean - 0.5], dim=1)


def plain_images() -> np.ndarray:
    """One level each."""
    return np.stack([np.full((3, 32, 32), level, np.uint8) for level in LEVELS])


def test_the_table_equals_one_by_hand() -> None:
    calls = []
    result = evaluate_corruptions(
        is_bright,
        plain_images(),
        LABELS,
        np.arange(6),
        kinds=("brightness", "contrast"),
        seed=0,
        batch_size=4,
        on_progress=lambda *call: calls.append(call),
    )
    # Of 6 images the last is always wrong. Brightness adds 0.05, 0.1, 0.15, 0.2, 0.3 to 0.22, 0.32, 0.38 and
    # 0.47; an image of one level has no contrast to lose.
    assert result.table["brightness"] == pytest.approx([4 / 6, 4 / 6, 3 / 6, 2 / 6, 1 / 6])
    assert result.table["contrast"] == pytest.approx([5 / 6] * 5)
    assert result.clean_acc == pytest.approx(5 / 6)
    assert result.mean_acc == pytest.approx(39 / 60)
    assert result.relative == pytest.approx(39 / 50)
    assert result.columns[3:6] == ["brightness/4", "brightness/5", "contrast/1"]
    assert result.correct[:, 2].tolist() == [True, True, False, False, True, False]
    assert calls[0] == ("brightness", 1, 1, 10, pytest.approx(4 / 6))
    assert calls[-1] == ("contrast", 5, 10, 10, pytest.approx(5 / 6))


def random_task(count: int = 23) -> tuple[nn.Module, Tensor, Tensor]:
    """A network that noise confuses on some images and not on others."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(1568, 3))
    images = torch.randint(0, 256, (count, 3, 16, 16), dtype=torch.uint8)
    with torch.no_grad():
        labels = model.eval()(images.float() / 255).argmax(1)
    return model, images, labels


def measure(
    model: nn.Module, images: Tensor, labels: Tensor, rows: Tensor, **settings: int
) -> CorruptionResult:
    kinds = ("gaussian_noise", "glass_blur", "frost")
    return evaluate_corruptions(
        model, images, labels, rows, kinds=kinds, severities=(1, 5), seed=3, **settings
    )


def test_outcomes_do_not_depend_on_batches_and_order() -> None:
    model, images, labels = random_task()
    rows = torch.arange(23) * 7
    whole = measure(model, images, labels, rows)
    assert whole.clean_acc == 1
    assert 0 < whole.mean_acc < 1
    order = torch.randperm(23)
    shuffled = measure(model, images[order], labels[order], rows[order], batch_size=5)
    assert np.array_equal(shuffled.rows, rows[order].numpy())
    assert np.array_equal(shuffled.correct, whole.correct[order.numpy()])
    shards = [measure(model, images[part], labels[part], rows[part]) for part in torch.arange(23).split(8)]
    assert np.array_equal(np.concatenate([shard.correct for shard in shards]), whole.correct)


def test_max_images_draws_the_same_images_in_any_order() -> None:
    model, images, labels = random_task()
    rows = torch.arange(23) + 100
    some = measure(model, images, labels, rows, max_images=9)
    assert some.correct.shape == (9, 6)
    turned = measure(model, images.flip(0), labels.flip(0), rows.flip(0), max_images=9)
    assert np.array_equal(turned.rows[::-1], some.rows)
    whole = measure(model, images, labels, rows)
    assert np.array_equal(whole.correct[some.rows - 100], some.correct)


def test_a_module_is_held_in_eval_mode_and_restored() -> None:
    model, images, labels = random_task()
    model.train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    assert measure(model, images, labels, torch.arange(23)).clean_acc == 1
    assert model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(parameter.requires_grad for parameter in model.parameters())


@pytest.mark.parametrize(("group", "kinds"), [("common", CORRUPTIONS), ("medical", MEDICAL)])
def test_the_record_of_a_group(group: str, kinds: dict[str, object]) -> None:
    result = evaluate_corruptions(
        is_bright, plain_images()[:, :, :16, :16], LABELS, np.arange(6), kinds=tuple(kinds), seed=0
    )
    record = result.record(group)
    assert list(record.kinds) == list(kinds)
    assert record.num_images == 6
    assert record.mean_acc == pytest.approx(np.mean(list(record.kinds.values())))
    assert record.relative == pytest.approx(record.mean_acc * 6 / 5)
    assert CorruptionRecord.model_validate_json(record.model_dump_json()) == record


def test_wrong_calls_are_explained() -> None:
    images, rows = plain_images(), np.arange(6)

    def run(kinds: tuple[str, ...] = ("fog",), severities: tuple[int, ...] = (1,), **changed: object):
        call = {"model": is_bright, "images": images, "labels": LABELS, "rows": rows, "seed": 0} | changed
        return evaluate_corruptions(kinds=kinds, severities=severities, **call)

    with pytest.raises(UsageError, match="no corruption 'hail'"):
        run(kinds=("fog", "hail"))
    with pytest.raises(UsageError, match="severity is 1, 2, 3, 4 or 5, got 0"):
        run(severities=(1, 0))
    with pytest.raises(
        UsageError, match=r"each kind of corruption once, and at least one, got \['fog', 'fog'\]"
    ):
        run(kinds=("fog", "fog"))
    with pytest.raises(UsageError, match=r"each severity of corruption once, and at least one, got \[\]"):
        run(severities=())
    with pytest.raises(DataError, match="6 images, 5 labels and 6 rows"):
        run(labels=LABELS[:5])
    with pytest.raises(DataError, match="no images"):
        run(images=images[:0], labels=LABELS[:0], rows=rows[:0])
    with pytest.raises(ModelError, match="not finite"):
        run(model=lambda batch: batch.mean((2, 3)) / 0)
    with pytest.raises(
        UsageError, match="record of the group 'common' needs severities 1 to 5 of gaussian_noise"
    ):
        run().record("common")
