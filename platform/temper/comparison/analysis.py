"""Comparing two models, or two recipes over several seeds, image by image."""

from collections.abc import Sequence
from pathlib import Path
from statistics import mean, stdev

import numpy as np

from temper.comparison.measured import Measured, load_side
from temper.comparison.pairing import Pair, pair_up, robust_refusal, warnings_about
from temper.comparison.record import (
    ComparisonRecord,
    Measure,
    PairedDifference,
    PairRecord,
    SeedSpread,
    SideRecord,
    Verdict,
)
from temper.records import Interval
from temper.seeds import derive_seed
from temper.statistics import (
    NUM_RESAMPLES,
    Cells,
    bootstrap_difference,
    count_cells,
    holm,
    newcombe,
    sign_flip_test,
    t_interval,
)

LEVEL = 0.05


def compare(a: Path, b: Path, *, seed: int = 0) -> ComparisonRecord:
    """Compare A with B on the images that both were evaluated on.

    ``a`` and ``b`` are each a record file, a run folder, or a folder of records with different seeds, which
    are compared seed by seed. ``seed`` decides the bootstrap's resamples.

    Raises:
        UsageError: a path that does not exist, twice the same record, or two records of one seed.
        RecordError: a record that is missing, damaged or changed, or models that cannot be compared.
    """
    side_a, side_b = load_side(a), load_side(b)
    pairs = pair_up(a, side_a, b, side_b)
    refused = robust_refusal(pairs)
    measures: list[Measure] = ["clean"] if refused else ["clean", "robust"]
    overall = _judge([_difference(pairs, measure, None, seed) for measure in measures])
    labels = sorted({int(label) for pair in pairs for label in np.unique(pair.labels)})
    per_class = [_difference(pairs, measure, label, seed) for label in labels for measure in measures]
    record = pairs[0].a.record
    return ComparisonRecord(
        a=str(a),
        b=str(b),
        data=record.data,
        threat=None if refused else record.threat,
        suite=None if refused else record.suite,
        robust_refused=refused,
        warnings=warnings_about(pairs, side_a, side_b),
        num_images=overall[0].num_images,
        clean=overall[0],
        robust=None if refused else overall[1],
        per_class=_judge(per_class),
        pairs=[_pair_record(pair, measures) for pair in pairs],
        seed=seed,
        num_resamples=NUM_RESAMPLES,
    )


def _difference(pairs: Sequence[Pair], measure: Measure, label: int | None, seed: int) -> PairedDifference:
    """One measure over the images of one class, or of all; not judged yet."""
    cells, sums, times = _gather(pairs, measure, label)
    name = None if label is None else pairs[0].a.record.data.classes[label]
    bootstrap = bootstrap_difference(
        sums, times, seed=derive_seed(seed, "bootstrap", measure, "all" if label is None else label)
    )
    added, p = _add_up(cells), sign_flip_test(sums)
    return PairedDifference(
        measure=measure,
        class_name=name,
        num_images=len(sums),
        cells=added,
        acc_a=added.acc_a,
        acc_b=added.acc_b,
        difference=added.difference,
        interval=_interval(added, len(pairs), len(sums), bootstrap),
        bootstrap=bootstrap,
        p_exact=p.exact,
        p_mid=p.mid,
        p_adjusted=p.mid,
        over_seeds=_over_seeds([one.difference for one in cells if one.total]),
        verdict="no difference shown",
    )


def _gather(
    pairs: Sequence[Pair], measure: Measure, label: int | None
) -> tuple[list[Cells], np.ndarray, np.ndarray]:
    """The cells of each pair; for each image (N,) how much A leads over all pairs, and in how many it is."""
    cells, rows, leads = [], [], []
    for pair in pairs:
        kept = np.ones(len(pair.rows), bool) if label is None else pair.labels == label
        of_a, of_b = (answers[kept] for answers in pair.answers(measure))
        cells.append(count_cells(of_a, of_b))
        rows.append(pair.rows[kept])
        leads.append(of_a.astype(np.int64) - of_b)
    _, image = np.unique(np.concatenate(rows), return_inverse=True)
    sums = np.bincount(image, weights=np.concatenate(leads)).astype(np.int64)
    return cells, sums, np.bincount(image)


def _add_up(cells: Sequence[Cells]) -> Cells:
    return Cells(
        both=sum(one.both for one in cells),
        only_a=sum(one.only_a for one in cells),
        only_b=sum(one.only_b for one in cells),
        neither=sum(one.neither for one in cells),
    )


def _interval(cells: Cells, num_pairs: int, num_images: int, bootstrap: Interval) -> Interval:
    """Newcombe's for one pair; for several seeds the bootstrap's, which keeps an image's answers together.

    Resampling says nothing where no image tells the models apart; then Newcombe's, as of one seed.
    """
    if num_pairs == 1:
        return newcombe(cells)
    if cells.only_a or cells.only_b:
        return bootstrap
    both = round(cells.acc_a * num_images)
    return newcombe(Cells(both=both, only_a=0, only_b=0, neither=num_images - both))


def _over_seeds(differences: Sequence[float]) -> SeedSpread | None:
    if len(differences) < 2:
        return None
    return SeedSpread(
        num_seeds=len(differences),
        mean=mean(differences),
        std=stdev(differences),
        interval=t_interval(differences),
        num_ahead_a=sum(value > 0 for value in differences),
        num_ahead_b=sum(value < 0 for value in differences),
    )


def _judge(family: Sequence[PairedDifference]) -> list[PairedDifference]:
    """The same differences with adjusted p-values and verdicts."""
    adjusted = holm([one.p_mid for one in family])
    return [
        one.model_copy(update={"p_adjusted": p, "verdict": _verdict(one, p)})
        for one, p in zip(family, adjusted, strict=True)
    ]


def _verdict(one: PairedDifference, p_adjusted: float) -> Verdict:
    if p_adjusted >= LEVEL or one.difference == 0:
        return "no difference shown"
    is_a = one.difference > 0
    spread = one.over_seeds
    if spread is not None and (spread.interval.low <= 0 if is_a else spread.interval.high >= 0):
        return (
            "A is better with these seeds, not shown for others"
            if is_a
            else "B is better with these seeds, not shown for others"
        )
    return "A is better" if is_a else "B is better"


def _pair_record(pair: Pair, measures: Sequence[Measure]) -> PairRecord:
    return PairRecord(
        a=_side_record(pair.a),
        b=_side_record(pair.b),
        num_images=len(pair.rows),
        clean=count_cells(*pair.clean),
        robust=count_cells(*pair.robust) if "robust" in measures else None,
    )


def _side_record(model: Measured) -> SideRecord:
    record = model.record
    return SideRecord(
        path=str(model.path),
        name=record.name,
        seed=record.seed,
        status=record.status,
        recipe_hash=record.recipe_hash,
        outcomes_sha256=record.files["outcomes"].sha256,
    )
