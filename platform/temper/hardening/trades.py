"""Training that weighs the clean answer against how far an attack can move it."""

from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from temper.attacks import NearPGD
from temper.hardening.base import CrossEntropy, WeightPerturbing


class TRADES(NearPGD, WeightPerturbing):
    """CE(f(x), y) + beta * KL(f(x) || f(x')), where x' raises that divergence.

    Zhang et al. 2019, arXiv:1901.08573; the paper's ``beta`` is 6 (called 1/lambda there).
    """

    kind: Literal["trades"] = "trades"  # type: ignore[assignment]
    raises: Literal["divergence"] = "divergence"
    beta: float = Field(default=6.0, gt=0, le=1000)

    needs_clean: ClassVar[bool] = True

    def loss(
        self, clean: Tensor | None, attacked: Tensor, labels: Tensor, cross_entropy: CrossEntropy
    ) -> Tensor:
        assert clean is not None
        divergence = F.kl_div(attacked.log_softmax(1), clean.softmax(1), reduction="batchmean")
        return cross_entropy(clean, labels) + self.beta * divergence


class MART(NearPGD, WeightPerturbing):
    """BCE(f(x'), y) + beta * mean[KL(f(x) || f(x')) * (1 - p_y(x))]: misclassified images count more.

    Wang et al. 2020 (ICLR, OpenReview rklOg6EFwS). BCE adds to the cross-entropy a margin to the most
    likely wrong class. PGD overestimates it: look at the whole suite.
    """

    kind: Literal["mart"] = "mart"  # type: ignore[assignment]
    raises: Literal["cross_entropy"] = "cross_entropy"
    beta: float = Field(default=6.0, gt=0, le=1000)

    needs_clean: ClassVar[bool] = True
    needs_classes: ClassVar[bool] = True

    def loss(
        self, clean: Tensor | None, attacked: Tensor, labels: Tensor, cross_entropy: CrossEntropy
    ) -> Tensor:
        assert clean is not None
        wrong = attacked.softmax(1).scatter(1, labels.unsqueeze(1), 0).amax(1)
        margin = -torch.log(1.0001 - wrong + 1e-12).mean()
        probability = clean.softmax(1)
        divergence = F.kl_div(attacked.log_softmax(1), probability, reduction="none").sum(1)
        doubt = 1.0000001 - probability.gather(1, labels.unsqueeze(1)).squeeze(1)
        return cross_entropy(attacked, labels) + margin + self.beta * (divergence * doubt).mean()
