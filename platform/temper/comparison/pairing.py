"""Who is compared with whom, on which images, and whether that can be done at all."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from temper.comparison.measured import Measured
from temper.comparison.record import Measure
from temper.errors import RecordError, UsageError
from temper.records import EvaluationRecord


@dataclass(frozen=True)
class Pair:
    """A and B on the images that both were evaluated on, all arrays (N,)."""

    a: Measured
    b: Measured
    rows: np.ndarray
    labels: np.ndarray
    clean: tuple[np.ndarray, np.ndarray]
    """Right answers of A and of B, bool."""
    robust: tuple[np.ndarray, np.ndarray]

    def answers(self, measure: Measure) -> tuple[np.ndarray, np.ndarray]:
        return self.clean if measure == "clean" else self.robust


def pair_up(path_a: Path, a: Sequence[Measured], path_b: Path, b: Sequence[Measured]) -> list[Pair]:
    """The single pair, or one for each seed that both sides have, by seed.

    Raises:
        UsageError: both sides are the same record, or several of a side have the same seed.
        RecordError: no common seed, or models of a pair that cannot be compared.
    """
    if len(a) == len(b) == 1:
        return [align(a[0], b[0])]
    by_seed_a, by_seed_b = _by_seed(path_a, a), _by_seed(path_b, b)
    common = sorted(by_seed_a.keys() & by_seed_b.keys())
    if not common:
        raise RecordError(
            f"{path_a} has seeds {_listed(by_seed_a)}, {path_b} has {_listed(by_seed_b)}: none in common; "
            "several models are compared seed by seed"
        )
    pairs = [align(by_seed_a[seed], by_seed_b[seed]) for seed in common]
    for pair in pairs[1:]:
        _check_data(pairs[0].a, pair.a)
    return pairs


def _by_seed(path: Path, models: Sequence[Measured]) -> dict[int, Measured]:
    found: dict[int, Measured] = {}
    for model in models:
        seed = model.record.seed
        if seed in found:
            raise UsageError(
                f"{path}: two records of seed {seed} ({found[seed].path} and {model.path}); "
                "give one record, or a folder with one record for each seed"
            )
        found[seed] = model
    return found


def _listed(seeds: dict[int, Measured]) -> str:
    return ", ".join(map(str, sorted(seeds)))


def align(a: Measured, b: Measured) -> Pair:
    """Put two models on their common images.

    Raises:
        UsageError: both are the same record.
        RecordError: they were evaluated on other data, or have no image in common.
    """
    if a.path.resolve() == b.path.resolve():
        raise UsageError(f"{a.path}: A and B are the same record; give two")
    _check_data(a, b)
    rows, in_a, in_b = np.intersect1d(a.rows, b.rows, assume_unique=True, return_indices=True)
    if len(rows) == 0:
        raise RecordError(
            f"{a.path} and {b.path}: no image in common ({len(a.rows)} and {len(b.rows)} images of "
            f"{a.record.data.name}); evaluate both on the same images"
        )
    labels = a.labels[in_a]
    if not np.array_equal(labels, b.labels[in_b]):
        raise RecordError(f"{a.path} and {b.path}: the same images have other labels; one was changed")
    return Pair(a, b, rows, labels, (a.correct[in_a], b.correct[in_b]), (a.robust[in_a], b.robust[in_b]))


def _check_data(a: Measured, b: Measured) -> None:
    first, second = a.record.data, b.record.data
    for what, of_a, of_b in (
        ("data", f"{first.name} {first.fingerprint}", f"{second.name} {second.fingerprint}"),
        ("classes", ", ".join(first.classes), ", ".join(second.classes)),
        ("splits", first.split, second.split),
    ):
        if of_a != of_b:
            raise RecordError(
                f"{a.path} and {b.path}: evaluated on other {what} ({of_a} and {of_b}); "
                "only models with the same data fingerprint, classes and split are compared"
            )


def robust_refusal(pairs: Sequence[Pair]) -> str | None:
    """Why robust accuracy is not compared; ``None`` where it is."""
    models = [model for pair in pairs for model in (pair.a, pair.b)]
    first = models[0]
    for model in models[1:]:
        for what, of_first in _attacked(first.record).items():
            of_model = _attacked(model.record)[what]
            if of_first != of_model:
                return (
                    f"{first.path} and {model.path} were attacked with other {what} "
                    f"({of_first} and {of_model}); evaluate both alike, `temper evaluate RUN --out DIR`"
                )
    return None


def _attacked(record: EvaluationRecord) -> dict[str, str]:
    threat, suite = record.threat, record.suite
    return {
        "threat models": f"{threat.norm} eps {threat.eps!r}" + " in grey" * threat.is_grey,
        "suites": f"{suite.name} version {suite.version}, {suite.hash}",
        "image sizes": f"{record.data.image_size} px",
    }


def warnings_about(pairs: Sequence[Pair], a: Sequence[Measured], b: Sequence[Measured]) -> list[str]:
    """What a reader must know before trusting the comparison."""
    lines = []
    for side, models, used in (
        ("A", a, [pair.a for pair in pairs]),
        ("B", b, [pair.b for pair in pairs]),
    ):
        lines += [_blocked(model) for model in used if model.record.status == "blocked"]
        if len({str(_without_seed(model.record)) for model in used}) > 1:
            lines.append(f"the models of {side} differ in more of their recipes than the seed")
        taken = {model.path for model in used}
        lines += [
            f"{model.path} is left out: the other side has no seed {model.record.seed}"
            for model in models
            if model.path not in taken
        ]
    for pair in pairs:
        if not len(pair.rows) == len(pair.a.rows) == len(pair.b.rows):
            lines.append(
                f"{pair.a.path} has {len(pair.a.rows)} images, {pair.b.path} has {len(pair.b.rows)}: "
                f"only the {len(pair.rows)} common ones are compared"
            )
    return lines


def _blocked(model: Measured) -> str:
    reasons = "; ".join(f"{gate.name}: {gate.detail}" for gate in model.record.gates if not gate.passed)
    return f"{model.path} is blocked, so its numbers can't be trusted ({reasons or 'no reason given'})"


def _without_seed(record: EvaluationRecord) -> dict[str, object]:
    return {name: value for name, value in record.recipe.items() if name not in ("seed", "name")}
