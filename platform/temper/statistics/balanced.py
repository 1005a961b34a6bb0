"""Balanced accuracy, the mean of the classes' recalls: its interval, and a paired test of two models."""

import math

import numpy as np

from temper.records import Interval
from temper.statistics.proportions import wilson


def balanced_proportion(right: np.ndarray, labels: np.ndarray) -> tuple[float, Interval]:
    """The mean recall over the classes in ``labels`` (N,) of answers ``right`` (N,) bool, and its interval.

    The classes' Wilson intervals are joined by their distances from the recalls (MOVER, Zou and Donner 2008,
    doi:10.1002/sim.3095), so that a class with few images, all of them right, still adds its width.
    """
    names = np.unique(labels)
    recalls = [wilson(int(right[labels == name].sum()), int((labels == name).sum())) for name in names]
    value = sum(one.value for one in recalls) / len(recalls)
    down = math.sqrt(sum((one.value - one.low) ** 2 for one in recalls)) / len(recalls)
    up = math.sqrt(sum((one.high - one.value) ** 2 for one in recalls)) / len(recalls)
    return value, Interval(low=max(0.0, value - down), high=min(1.0, value + up))


def paired_balanced_p(a: np.ndarray, b: np.ndarray, labels: np.ndarray) -> float:
    """Two-sided p-value that models with answers ``a`` and ``b``, (N,) bool, have one balanced accuracy.

    Where the models are alike, each discordant image might as well have favoured the other one. An image
    weighs 1/n of its class; the sum over random signs is taken as normal, less the smallest weight (Edwards
    1948), which keeps the error of few discordant images within the level. With equal classes it is
    McNemar's test with that correction.
    """
    counts = np.bincount(labels)
    signed = (a.astype(np.int64) - b.astype(np.int64)) / counts[labels]
    signed = signed[signed != 0]
    if not len(signed):
        return 1.0
    distance = max(0.0, abs(float(signed.sum())) - float(np.abs(signed).min()))
    return math.erfc(distance / math.sqrt(2 * float((signed**2).sum())))
