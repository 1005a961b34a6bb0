"""A linear probe: how far the frozen start already solves the target."""

import warnings

import numpy as np


def linear_probe(
    train_features: np.ndarray, train_labels: np.ndarray, test_features: np.ndarray, test_labels: np.ndarray
) -> float:
    """Balanced test accuracy 0..1 of a logistic regression on features (N,D) of a frozen backbone."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import balanced_accuracy_score
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    probe = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000, class_weight="balanced"))
    with warnings.catch_warnings():
        # An unconverged probe is still a probe: it only makes the start look a little weaker.
        warnings.simplefilter("ignore", ConvergenceWarning)
        probe.fit(train_features, train_labels)
    return float(balanced_accuracy_score(test_labels, probe.predict(test_features)))
