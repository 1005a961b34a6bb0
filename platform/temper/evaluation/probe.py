"""A linear probe: how far the frozen start already solves the target."""

import warnings
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class LinearProbe:
    """A logistic regression on standardised features (N,D) of a frozen backbone."""

    mean: np.ndarray
    scale: np.ndarray
    weight: np.ndarray
    """(C,D)"""
    bias: np.ndarray
    classes: np.ndarray
    """(C,) labels of the rows; classes without a training image have none."""

    @classmethod
    def fit(cls, features: np.ndarray, labels: np.ndarray) -> "LinearProbe":
        """Fit it to features (N,D) with labels (N,), every class weighing the same."""
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.linear_model import LogisticRegression
        from sklearn.preprocessing import StandardScaler

        scaler = StandardScaler().fit(features)
        regression = LogisticRegression(max_iter=1000, class_weight="balanced")
        with warnings.catch_warnings():
            # An unconverged probe is still a probe: it only makes the start look a little weaker.
            warnings.simplefilter("ignore", ConvergenceWarning)
            regression.fit(scaler.transform(features), labels)
        weight, bias = regression.coef_, regression.intercept_
        if len(weight) == 1:  # of two classes scikit-learn keeps the second alone
            weight, bias = (np.concatenate([np.zeros_like(part), part]) for part in (weight, bias))
        return cls(scaler.mean_, scaler.scale_, weight, bias, regression.classes_)

    @classmethod
    def of_head(cls, weight: Tensor, bias: Tensor) -> "LinearProbe":
        """That of a head: weight (C,D) and bias (C,); a single logit is that of the second of two classes."""
        if len(weight) == 1:
            weight, bias = (torch.cat([torch.zeros_like(part), part]) for part in (weight, bias))
        own = weight.detach().cpu().numpy(), bias.detach().cpu().numpy()
        num_classes, width = weight.shape
        return cls(np.zeros(width, np.float32), np.ones(width, np.float32), *own, np.arange(num_classes))

    def logits(self, features: Tensor) -> Tensor:
        """(N,K) for features (N,D), K = the largest label + 1; through which gradients flow."""
        mean, scale, weight, bias = (
            torch.from_numpy(part).to(features) for part in (self.mean, self.scale, self.weight, self.bias)
        )
        answers = ((features - mean) / scale) @ weight.T + bias
        labels = torch.from_numpy(self.classes).to(features.device)
        # A class that the probe has never met never wins.
        logits = answers.new_full((len(features), int(labels.max()) + 1), -1e4)
        return logits.index_copy(1, labels, answers)

    def balanced_acc(self, features: np.ndarray, labels: np.ndarray) -> float:
        """Balanced accuracy 0..1 on features (N,D) with labels (N,)."""
        from sklearn.metrics import balanced_accuracy_score

        prediction = self.logits(torch.from_numpy(features)).argmax(1).numpy()
        return float(balanced_accuracy_score(labels, prediction))
