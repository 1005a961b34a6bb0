"""Numbers of a record, computed again from its outcomes. Accuracies are fractions 0..1."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from temper.records import Proportion
from temper.statistics import fold_spread, slices_of, wilson
from temper.verification.cascades import (
    Cascade,
    curve_cascades,
    main_cascade,
    other_cascades,
    without_gaps,
)
from temper.verification.evidence import Evidence
from temper.verification.record import Check, check_of, differences

SEVERITIES = range(1, 6)


def check_clean(evidence: Evidence) -> Check:
    """Clean accuracy and what else follows from clean predictions."""
    record, columns = evidence.record, evidence.columns
    prediction = without_gaps(columns["prediction"], columns["label"], len(record.data.classes))
    found = {
        "clean_acc": _share(columns["correct"]),
        "balanced_acc": _balanced(columns["correct"], columns["label"]),
        "auroc": record.metrics.clean.auroc if record.metrics else None,
    }
    problems = [*_compare(record, found)]
    if record.metrics is None:
        problems.append("metrics are missing")
    if record.metrics is not None:
        again = {"balanced_acc": found["balanced_acc"], "macro_f1": _macro_f1(prediction, columns["label"])}
        problems += _compare(record.metrics.clean, again, "metrics.clean.")
    return check_of(
        "clean accuracy", problems, f"{record.clean_acc.count} of {evidence.num_images} images right"
    )


def check_robust(evidence: Evidence) -> Check:
    """Robust accuracy and what else follows from predictions under attack."""
    record, columns = evidence.record, evidence.columns
    main = main_cascade(evidence)
    found = {
        "robust_acc": _share(columns["robust"]),
        "robust_balanced_acc": _balanced(columns["robust"], columns["label"]),
    }
    problems = [*_compare(record, found)]
    if record.metrics is not None:
        worst = without_gaps(main.predictions(), columns["label"], len(record.data.classes))
        f1 = _macro_f1(worst, columns["label"])
        again = {"balanced_acc": found["robust_balanced_acc"], "macro_f1": f1}
        problems += _compare(record.metrics.robust, again, "metrics.robust.")
    return check_of("robust accuracy", problems, f"{record.robust_acc.count} of {evidence.num_images} images")


def check_classes(evidence: Evidence) -> Check:
    """Clean and robust accuracy of each class."""
    columns, names = evidence.columns, evidence.record.data.classes
    clean, robust = (_recalls(columns[name], columns["label"]) for name in ("correct", "robust"))
    found = {names[label]: {"clean_acc": clean[label], "robust_acc": robust[label]} for label in clean}
    problems = differences("per_class", evidence.record.per_class, found)
    return check_of("per class", problems, f"{len(found)} classes")


def check_slices(evidence: Evidence) -> Check:
    """Clean and robust accuracy of each value of each attribute, and its gaps to the other images."""
    record, found = evidence.record, slices_of(evidence.columns)
    if record.unsliced is None:  # earlier records have no gaps
        found = [one.model_copy(update={"clean_gap": None, "robust_gap": None}) for one in found]
    problems = differences("slices", record.slices, found)
    return check_of("slices", problems, f"{len(found)} values of attributes")


def check_attacks(evidence: Evidence) -> Check:
    """What each member did."""
    record = evidence.record
    problems = [*_members("attacks", main_cascade(evidence), record.attacks)]
    for index, (cascade, attacks) in enumerate(other_cascades(evidence)):
        problems += _members(f"others.{index}.attacks", cascade, attacks)
    return check_of("attacks", problems, f"{len(record.attacks)} members, one after the other")


def _members(path: str, cascade: Cascade, attacks: Any) -> Iterator[str]:
    names = ("num_attacked", "num_fooled", "robust_acc_after")
    for index, (attack, numbers) in enumerate(zip(attacks, cascade.numbers(), strict=True)):
        claimed = {name: getattr(attack, name) for name in names}
        yield from differences(f"{path}.{index}", claimed, dict(zip(names, numbers, strict=True)))


def check_threats(evidence: Evidence) -> Check:
    """The curve over eps, other threat models, and all of them at once."""
    record, main = evidence.record, main_cascade(evidence)
    others = other_cascades(evidence)
    problems: list[str] = []
    for index, (cascade, _) in enumerate(others):
        claimed = record.others[index].robust_acc
        problems += differences(f"others.{index}.robust_acc", claimed, _share(cascade.standing))
    standing = {record.threat.eps: main.standing}
    standing |= {cascade.threat.eps: cascade.standing for cascade in curve_cascades(evidence)}
    for index, point in enumerate(record.curve):
        problems += differences(f"curve.{index}.robust_acc", point.robust_acc, _share(standing[point.eps]))
    if record.curve and record.threat.eps not in [point.eps for point in record.curve]:
        problems.append("curve: lacks the main eps")
    together = np.logical_and.reduce([main.standing, *(cascade.standing for cascade, _ in others)])
    problems += differences("union_acc", record.union_acc, _share(together) if others else None)
    return check_of("threat models", problems, f"{1 + len(others)}, and a curve of {len(record.curve)} eps")


def check_corruptions(evidence: Evidence) -> Check:
    """Accuracy under each kind and severity of corruption."""
    columns = evidence.columns
    clean = float(columns["correct"].mean())
    problems: list[str] = []
    for index, claimed in enumerate(evidence.record.corruptions):
        tables = {
            kind: [
                float(columns[f"{claimed.group}/{kind}/{severity}/correct"].mean()) for severity in SEVERITIES
            ]
            for kind in claimed.kinds
        }
        mean = float(np.mean(list(tables.values())))
        found = {
            "kinds": tables,
            "mean_acc": mean,
            "relative": mean / clean if clean else 0.0,
            "num_images": evidence.num_images,
        }
        problems += _compare(claimed, found, f"corruptions.{index}.")
    return check_of("corruptions", problems, f"{len(evidence.record.corruptions)} groups")


def check_minimum_norms(evidence: Evidence) -> Check:
    """Quantiles of the smallest perturbations found."""
    columns, claimed = evidence.columns, evidence.record.minimum_norm
    found = None
    if "minimum_norm" in columns and columns["correct"].any():
        norms = np.sort(columns["minimum_norm"][columns["correct"]].astype(np.float64))
        chosen = {
            name: float(norms[min(len(norms) - 1, int(share * len(norms)))])
            for name, share in (("median", 0.5), ("lower_quartile", 0.25), ("upper_quartile", 0.75))
        }
        found = {
            "norm": evidence.record.threat.norm,
            "num_images": len(norms),
            "num_found": int(np.isfinite(norms).sum()),
            **{name: value if np.isfinite(value) else None for name, value in chosen.items()},
        }
    problems = differences("minimum_norm", claimed, found)
    return check_of("minimum norms", problems, "none" if found is None else f"{found['num_images']} images")


def check_promises(evidence: Evidence) -> Check:
    """Robustness, consistency over folds, and the arithmetic of adaptability."""
    record, columns = evidence.record, evidence.columns
    clean, robust = float(columns["correct"].mean()), float(columns["robust"].mean())
    promises = record.promises
    spread = fold_spread(columns["correct"], columns["robust"], columns["label"], record.seed)
    found = {
        "robustness": {"robust_acc": robust, "retained": robust / clean if clean else 0.0},
        "consistency": spread,
    }
    problems = [*_compare(promises, found, "promises.")]
    if promises.adaptability is not None:
        start = promises.adaptability.frozen_start_balanced_acc
        again = {"balanced_acc": record.balanced_acc, "gain": record.balanced_acc - start}
        problems += _compare(promises.adaptability, again, "promises.adaptability.")
    source = record.source_acc
    if source is not None:
        problems += differences("source_acc", source, wilson(min(source.count, source.total), source.total))
    return check_of("promises", problems, "robustness, consistency and adaptability")


def _compare(claimed: Any, found: dict[str, Any], prefix: str = "") -> Iterator[str]:
    for name, value in found.items():
        yield from differences(f"{prefix}{name}", getattr(claimed, name), value)


def _share(mask: np.ndarray) -> Proportion:
    return wilson(int(mask.sum()), len(mask))


def _recalls(correct: np.ndarray, labels: np.ndarray) -> dict[int, float]:
    """Class -> share of its images in ``correct``; classes without images are left out."""
    return {int(label): float(correct[labels == label].mean()) for label in np.unique(labels)}


def _balanced(correct: np.ndarray, labels: np.ndarray) -> float:
    values = _recalls(correct, labels).values()
    return sum(values) / len(values)


def _macro_f1(prediction: np.ndarray, labels: np.ndarray) -> float:
    """The mean F1 score over the classes that occur or are predicted."""
    scores = []
    for label in np.union1d(prediction, labels):
        hits = int(((prediction == label) & (labels == label)).sum())
        scores.append(2 * hits / int((prediction == label).sum() + (labels == label).sum()))
    return float(np.mean(scores))
