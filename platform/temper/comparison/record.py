"""``compare.json``: what a comparison of two models found, and what it rests on."""

from typing import Literal

from temper.records import DataRecord, Interval, SuiteRecord
from temper.spec import Spec, Threat
from temper.statistics import Cells

Measure = Literal["clean", "robust"]
Verdict = Literal[
    "A is better",
    "B is better",
    "no difference shown",
    "A is better with these seeds, not shown for others",
    "B is better with these seeds, not shown for others",
]


class SideRecord(Spec):
    """One evaluated model that took part."""

    path: str
    """Its record file."""
    name: str
    seed: int
    status: Literal["ok", "blocked"]
    recipe_hash: str
    outcomes_sha256: str


class PairRecord(Spec):
    """Two models on their common images."""

    a: SideRecord
    b: SideRecord
    num_images: int
    clean: Cells
    robust: Cells | None


class SeedSpread(Spec):
    """The difference A - B over trainings with different seeds."""

    num_seeds: int
    mean: float
    std: float
    """The sample standard deviation."""
    interval: Interval
    """Student's, for the mean over seeds."""
    num_ahead_a: int
    num_ahead_b: int


class PairedDifference(Spec):
    """One accuracy of A and B on the same images; accuracies are fractions 0..1."""

    measure: Measure
    class_name: str | None
    """``None``: over all classes."""
    num_images: int
    cells: Cells
    """Images right with both, only A, only B, neither; with several seeds, added up over them."""
    acc_a: float
    acc_b: float
    difference: float
    """acc_a - acc_b."""
    interval: Interval
    """For the difference: Newcombe's for one pair, the bootstrap's for several seeds."""
    bootstrap: Interval
    """The paired bootstrap over images; without width where no image tells the models apart."""
    p_exact: float
    p_mid: float
    p_adjusted: float
    """``p_mid`` after Holm's correction: clean and robust are one family, all the classes another."""
    over_seeds: SeedSpread | None
    """``None`` for a single pair."""
    verdict: Verdict


class ComparisonRecord(Spec):
    """A against B. The same records and seed give the same comparison."""

    schema_version: Literal[1] = 1
    a: str
    """As it was given: a record file, a run folder, or a folder of several."""
    b: str
    data: DataRecord
    threat: Threat | None
    """``None`` where robust accuracy is not compared, as is ``suite``."""
    suite: SuiteRecord | None
    robust_refused: str | None
    """Why robust accuracy is not compared."""
    warnings: list[str]
    num_images: int
    """Images that both sides were evaluated on."""
    clean: PairedDifference
    robust: PairedDifference | None
    per_class: list[PairedDifference]
    pairs: list[PairRecord]
    """One, or one for each seed."""
    seed: int
    num_resamples: int
