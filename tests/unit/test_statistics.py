import itertools

import numpy as np
import pytest

from temper.statistics import (
    Cells,
    bootstrap_difference,
    count_cells,
    holm,
    mcnemar,
    newcombe,
    sign_flip_test,
    t_interval,
    wilson,
)


def table(both: int, only_a: int, only_b: int, neither: int) -> Cells:
    return Cells(both=both, only_a=only_a, only_b=only_b, neither=neither)


def test_cells_count_each_image_once() -> None:
    a = np.array([1, 1, 1, 0, 0, 0, 0], bool)
    b = np.array([1, 0, 0, 1, 0, 0, 0], bool)
    cells = count_cells(a, b)
    assert cells == table(1, 2, 1, 3)
    assert (cells.acc_a, cells.acc_b) == (a.mean(), b.mean())
    assert cells.difference == pytest.approx(a.mean() - b.mean())


@pytest.mark.parametrize("only_a", [0, 1, 3, 7, 60, 1200])
@pytest.mark.parametrize("only_b", [0, 1, 4, 9, 41, 1100])
def test_mcnemar_is_scipy_s_binomial_test(only_a: int, only_b: int) -> None:
    from scipy.stats import binom, binomtest

    found = mcnemar(only_a, only_b)
    if only_a + only_b == 0:
        assert (found.exact, found.mid) == (1.0, 1.0)
        return
    assert found.exact == pytest.approx(binomtest(only_a, only_a + only_b).pvalue, rel=1e-9)
    half = binom.pmf(only_a, only_a + only_b, 0.5)
    assert found.mid == pytest.approx(found.exact - (half / 2 if only_a == only_b else half), rel=1e-9)


@pytest.mark.parametrize(
    ("only_a", "only_b", "exact", "mid"),
    [(1, 7, 0.0703, 0.0391), (6, 16, 0.0525, 0.0347)],
    ids=["airway hyper-responsiveness", "complete response"],
)
def test_mcnemar_gives_the_published_p(only_a: int, only_b: int, exact: float, mid: float) -> None:
    """The two examples of Fagerland, Lydersen and Laake 2013, doi:10.1186/1471-2288-13-91."""
    found = mcnemar(only_a, only_b)
    assert found.exact == pytest.approx(exact, abs=5e-5)
    assert found.mid == pytest.approx(mid, abs=5e-5)


@pytest.mark.parametrize(
    "differences", [[3, -1, 2, 0, 1, 1, -2], [2, 2, 2, -3, 1], [1, -1], [3, 3, 0, 3], [0]]
)
def test_the_sign_flip_test_counts_all_signs(differences: list[int]) -> None:
    sums = [
        sum(sign * abs(value) for sign, value in zip(signs, differences, strict=True))
        for signs in itertools.product([-1, 1], repeat=len(differences))
    ]
    observed = abs(sum(differences))
    beyond = np.mean([abs(value) > observed for value in sums])
    equal = np.mean([abs(value) == observed for value in sums])
    found = sign_flip_test(np.array(differences))
    assert found.exact == pytest.approx(beyond + equal)
    assert found.mid == pytest.approx(beyond + equal / 2 if any(differences) else 1.0)


@pytest.mark.parametrize(
    ("cells", "low", "high"),
    [
        ((36, 12, 2, 0), 0.0569, 0.3404),
        ((18, 12, 2, 18), 0.0562, 0.3290),
        ((53, 0, 0, 1), -0.0729, 0.0729),
        ((59, 6, 16, 80), -0.1186, -0.0046),
        ((1, 1, 7, 12), -0.507, -0.026),
    ],
)
def test_newcombe_gives_the_published_intervals(
    cells: tuple[int, int, int, int], low: float, high: float
) -> None:
    """Newcombe 1998 (Statistics in Medicine 17:2635), and Fagerland, Lydersen and Laake 2014 (33:2850)."""
    found = newcombe(table(*cells))
    tolerance = 5e-4 if cells[0] == 1 else 5e-5
    assert (found.low, found.high) == (pytest.approx(low, abs=tolerance), pytest.approx(high, abs=tolerance))


@pytest.mark.parametrize("cells", [(40, 0, 0, 0), (0, 0, 0, 5), (1, 0, 0, 0), (0, 9, 0, 0), (0, 0, 3, 2)])
def test_newcombe_stays_within_bounds_where_counts_are_empty(cells: tuple[int, int, int, int]) -> None:
    found = newcombe(table(*cells))
    assert -1 <= found.low <= table(*cells).difference <= found.high <= 1
    assert found.high - found.low > 0.05


def test_the_bootstrap_is_that_over_images() -> None:
    """Against drawing images one by one, with the answers of three seeds and an image missing in some."""
    generator = np.random.default_rng(5)
    hard = generator.random(80)[:, None]
    a, b = (generator.random((80, 3)) < share - 0.5 * hard for share in (1.0, 0.9))
    there = generator.random((80, 3)) < 0.8
    there[:, 0] = True
    leads, times = ((a.astype(int) - b) * there).sum(1), there.sum(1)
    found = bootstrap_difference(leads, times, seed=0)
    drawn = [generator.integers(0, 80, 80) for _ in range(10_000)]
    naive = [(a[rows][there[rows]].mean() - b[rows][there[rows]].mean()) for rows in drawn]
    low, high = np.quantile(naive, [0.025, 0.975])
    assert high - low > 0.1
    assert (found.low, found.high) == (pytest.approx(low, abs=0.006), pytest.approx(high, abs=0.006))
    assert found == bootstrap_difference(leads, times, seed=0)
    assert found != bootstrap_difference(leads, times, seed=1)


def test_answers_repeated_over_seeds_are_no_new_images() -> None:
    differences = np.random.default_rng(0).choice([-1, 0, 0, 0, 1, 1], 60)
    once = bootstrap_difference(differences, seed=0)
    thrice = bootstrap_difference(3 * differences, np.full(60, 3), seed=0)
    assert (once.low, once.high) == (pytest.approx(thrice.low), pytest.approx(thrice.high))
    assert sign_flip_test(differences).mid == pytest.approx(sign_flip_test(3 * differences).mid)


def test_both_intervals_cover_the_truth_as_often_as_they_say() -> None:
    """Strongly paired models: an interval that forgot the pairing would cover nearly always."""
    generator = np.random.default_rng(1)
    shares, num_images, num_sets = (0.45, 0.10, 0.05, 0.40), 250, 400
    hits = {"bootstrap": 0, "newcombe": 0, "not paired": 0}
    for index in range(num_sets):
        cells = table(*generator.multinomial(num_images, shares).tolist())
        differences = np.repeat([1, -1, 0], [cells.only_a, cells.only_b, cells.both + cells.neither])
        interval = bootstrap_difference(differences, seed=index, num_resamples=1000)
        hits["bootstrap"] += interval.low <= 0.05 <= interval.high
        interval = newcombe(cells)
        hits["newcombe"] += interval.low <= 0.05 <= interval.high
        variance = sum(acc * (1 - acc) / num_images for acc in (cells.acc_a, cells.acc_b))
        hits["not paired"] += abs(cells.difference - 0.05) <= 1.96 * variance**0.5
    assert 0.92 <= hits["bootstrap"] / num_sets <= 0.98
    assert 0.92 <= hits["newcombe"] / num_sets <= 0.98
    assert hits["not paired"] / num_sets > 0.99


def test_equal_models_are_seldom_called_different() -> None:
    """The mid-p of equal models falls below 5 % in at most 5 % of cases, and not far fewer."""
    generator = np.random.default_rng(2)
    p_values = [mcnemar(*generator.multinomial(200, (0.1, 0.1, 0.8))[:2].tolist()).mid for _ in range(2000)]
    assert 0.03 < np.mean(np.array(p_values) < 0.05) < 0.06


def test_holm_on_a_textbook_example() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.8, 0.7]) == [1.0, 1.0]
    assert holm([0.02]) == [0.02]
    assert holm([]) == []


def test_holm_rejects_what_the_stepwise_procedure_rejects() -> None:
    generator = np.random.default_rng(3)
    for _ in range(200):
        p_values = (generator.random(6) ** 3).tolist()
        rejected: set[int] = set()
        for step, index in enumerate(np.argsort(p_values).tolist()):
            if p_values[index] > 0.05 / (6 - step):
                break
            rejected.add(index)
        assert {index for index, p in enumerate(holm(p_values)) if p <= 0.05} == rejected


def test_the_interval_of_a_mean_is_student_s() -> None:
    from scipy.stats import t

    for values, quantile in (([0.0, 1.0], 12.706), ([0.0, 1.0, 2.0], 4.303), ([0, 1, 1, 2, 2, 2], 2.571)):
        half = quantile * np.std(values, ddof=1) / len(values) ** 0.5  # Student's table of 1908 and later
        found = t_interval(values)
        assert (found.high - found.low) / 2 == pytest.approx(half, rel=2e-4)
    values = [0.02, 0.05, 0.01, 0.04]
    low, high = t.interval(0.95, 3, loc=np.mean(values), scale=np.std(values, ddof=1) / 2)
    assert t_interval(values).low == pytest.approx(low)
    assert t_interval(values).high == pytest.approx(high)


def test_the_evaluation_s_wilson_is_scipy_s() -> None:
    from scipy.stats import binomtest

    for count, total in ((0, 9), (3, 9), (9, 9), (180, 256)):
        reference = binomtest(count, total).proportion_ci(method="wilson")
        found = wilson(count, total)
        assert (found.low, found.high) == (pytest.approx(reference.low), pytest.approx(reference.high))
