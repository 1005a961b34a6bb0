import math

import pytest
import torch

from temper.objective import Objective

LOGITS = {"target": torch.tensor([[0.0, 0.0], [math.log(3), 0.0]]), "source": torch.tensor([[0.0, 0.0, 0.0]])}
LABELS = {"target": torch.tensor([0, 1]), "source": torch.tensor([2])}


def test_mean_target_plus_alpha_mean_source_by_hand() -> None:
    losses = Objective(alpha=0.5).loss(LOGITS, LABELS)
    target = (math.log(2) + math.log(4)) / 2
    assert losses["target/loss"].item() == pytest.approx(target)
    assert losses["source/loss"].item() == pytest.approx(math.log(3))
    assert losses["loss"].item() == pytest.approx(target + 0.5 * math.log(3))


def test_alpha_0_reads_no_source() -> None:
    assert set(Objective(alpha=0).loss({"target": LOGITS["target"]}, LABELS)) == {"loss", "target/loss"}


def test_balanced_weights_make_classes_count_alike() -> None:
    weights = Objective(class_weights="balanced").target_class_weights([100, 400])
    assert weights is not None
    assert weights.tolist() == pytest.approx([2.5, 0.625])
    assert (weights * torch.tensor([100.0, 400.0])).sum().item() == pytest.approx(500)
    losses = Objective().loss(LOGITS, LABELS, weights)
    by_hand = (2.5 * math.log(2) + 0.625 * math.log(4)) / 3.125
    assert losses["loss"].item() == pytest.approx(by_hand)
