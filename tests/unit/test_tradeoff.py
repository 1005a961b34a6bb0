"""Fronts, volumes, ranks and importance, against SciPy, brute force and planted truths."""

import itertools
import subprocess
import sys
from typing import Any

import numpy as np
import pytest

from temper.tradeoff import Importance, hypervolume, importance, pareto_front, rank_agreement

# --- front and volume -------------------------------------------------------------------------


def random_points(count: int, objectives: int, seed: int, steps: int | None = None) -> list[list[float]]:
    points = np.random.default_rng(seed).random((count, objectives))
    return (points if steps is None else np.round(points * steps) / steps).tolist()


def dominates(a: list[float], b: list[float]) -> bool:
    pairs = list(zip(a, b, strict=True))
    return all(x >= y for x, y in pairs) and any(x > y for x, y in pairs)


@pytest.mark.parametrize("objectives", [1, 2, 3, 4])
@pytest.mark.parametrize("steps", [None, 4])
def test_the_front_is_what_none_dominates(objectives: int, steps: int | None) -> None:
    points = random_points(60, objectives, seed=objectives, steps=steps)
    expected = [i for i, p in enumerate(points) if not any(dominates(q, p) for q in points)]
    assert pareto_front(points) == expected


def test_equal_points_all_stay_on_the_front() -> None:
    assert pareto_front([(0.5, 0.5), (0.4, 0.5), (0.5, 0.5), (0.2, 0.9)]) == [0, 2, 3]
    assert pareto_front([]) == []
    assert pareto_front([(0.3,)]) == [0]


def inclusion_exclusion(points: list[list[float]]) -> float:
    """Volume of a union of boxes at the origin, from the volumes of their intersections."""
    total = 0.0
    for size in range(1, len(points) + 1):
        for chosen in itertools.combinations(points, size):
            total += (-1) ** (size + 1) * float(np.prod(np.min(chosen, axis=0)))
    return total


@pytest.mark.parametrize("objectives", [1, 2, 3, 4])
@pytest.mark.parametrize("steps", [None, 3])
def test_hypervolume_is_the_volume_of_a_union_of_boxes(objectives: int, steps: int | None) -> None:
    for seed in range(8):
        points = random_points(8, objectives, seed, steps)
        assert hypervolume(points) == pytest.approx(inclusion_exclusion(points), abs=1e-12)


def test_hypervolume_by_hand_and_from_another_reference() -> None:
    assert hypervolume([(0.5, 0.4), (0.2, 0.8)]) == pytest.approx(0.5 * 0.4 + 0.2 * 0.4)
    assert hypervolume([(1, 1, 1, 1)]) == 1
    assert hypervolume([(0.5, 0.5), (0.9, 0.1)], reference=(0.2, 0.2)) == pytest.approx(0.09)
    assert hypervolume([(-0.5, 0.9)]) == 0
    assert hypervolume([]) == 0


def test_hypervolume_needs_no_more_than_the_front_and_no_order() -> None:
    points = random_points(40, 3, seed=5)
    front = [points[i] for i in pareto_front(points)]
    assert hypervolume(front) == pytest.approx(hypervolume(points), abs=1e-12)
    assert hypervolume(points[::-1]) == pytest.approx(hypervolume(points), abs=1e-12)


def test_what_has_no_front_or_volume_is_refused() -> None:
    with pytest.raises(ValueError, match="1 to 4 objectives, got 5"):
        hypervolume([[0.5] * 5])
    with pytest.raises(ValueError, match="finite"):
        pareto_front([(0.1, float("nan"))])
    with pytest.raises(ValueError, match="same number of objectives"):
        pareto_front([(0.1, 0.2), (0.1,)])
    with pytest.raises(ValueError, match="reference has 1 values"):
        hypervolume([(0.1, 0.2)], reference=(0.0,))


# --- ranks ------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("steps", [None, 3])
def test_ranks_agree_with_scipy(seed: int, steps: int | None) -> None:
    stats = pytest.importorskip("scipy.stats")
    proxy, suite = np.array(random_points(12, 2, seed, steps)).T
    found = rank_agreement(proxy.tolist(), suite.tolist())
    assert found.num_models == 12
    assert found.kendall == pytest.approx(stats.kendalltau(proxy, suite, variant="b").statistic)
    assert found.spearman == pytest.approx(stats.spearmanr(proxy, suite).statistic)


def test_good_agreement_gives_no_warning_and_poor_agreement_says_what_to_do() -> None:
    good = rank_agreement([0.1, 0.2, 0.3, 0.4], [0.2, 0.25, 0.3, 0.5])
    assert (good.kendall, good.spearman, good.warning) == (1, 1, None)
    poor = rank_agreement([0.1, 0.2, 0.3, 0.4], [0.5, 0.3, 0.25, 0.2])
    assert (poor.kendall, poor.spearman) == (-1, -1)
    assert poor.warning is not None
    assert "validation.steps" in poor.warning
    assert "finalists" in poor.warning
    # One of three pairs of four models the other way: (5 - 1) / 6 = 0.67 is fine.
    assert rank_agreement([1, 2, 3, 4], [1, 3, 2, 4]).warning is None
    # Two of six pairs: (4 - 2) / 6 = 0.33 is not.
    assert rank_agreement([1, 2, 3, 4], [2, 3, 1, 4]).warning is not None


@pytest.mark.parametrize("count", [0, 1, 2, 3])
def test_few_models_cannot_be_judged(count: int) -> None:
    found = rank_agreement(list(range(count)), list(range(count)))
    assert found.num_models == count
    assert found.warning is not None
    assert "too few" in found.warning


def test_what_is_constant_has_no_order() -> None:
    found = rank_agreement([0.5, 0.5, 0.5, 0.5], [0.1, 0.2, 0.3, 0.4])
    assert (found.kendall, found.spearman) == (0, 0)
    assert found.warning is not None
    assert "validation metric is the same" in found.warning
    with pytest.raises(ValueError, match="2 models, suite has 1"):
        rank_agreement([1, 2], [1])


# --- importance -------------------------------------------------------------------------------


def shares(found: Importance) -> dict[str, float]:
    return {one.name: one.share for one in found.parameters}


def drawn(count: int, seed: int) -> tuple[list[dict[str, Any]], list[float]]:
    """alpha decides most, the schedule's kind some, two parameters nothing."""
    generator = np.random.default_rng(seed)
    points, values = [], []
    for _ in range(count):
        kind = ["full", "gradual", "lp_ft"][generator.integers(3)]
        alpha = float(generator.uniform(0, 1))
        points.append(
            {
                "alpha": alpha,
                "schedule": kind,
                "lr": float(generator.uniform(0, 1)),
                "blur": bool(generator.integers(2)),
                "fixed": 3,
            }
        )
        values.append(alpha + {"full": 0, "gradual": 0.5, "lp_ft": 0}[kind] + 0.03 * generator.normal())
    return points, values


@pytest.mark.parametrize("seed", range(4))
def test_planted_importance_is_recovered(seed: int) -> None:
    found = importance(*drawn(40, seed))
    assert {one.name for one in found.parameters[:2]} == {"alpha", "schedule"}
    by_name = shares(found)
    assert set(by_name) == {"alpha", "schedule", "lr", "blur"}
    # A perfect forecast would find twice their shares of the variance, 1.2 and 0.8.
    assert 0.7 < by_name["alpha"] < 1.5
    assert 0.4 < by_name["schedule"] < 1.2
    assert abs(by_name["lr"]) < 0.05
    assert abs(by_name["blur"]) < 0.05
    assert found.explained is not None
    assert found.explained > 0.6
    assert found.warning is None
    assert all(one.error > 0 for one in found.parameters)


def test_importance_of_what_decides_alone_is_near_two() -> None:
    """(y - y')² of two independent draws is twice the variance on average."""
    generator = np.random.default_rng(0)
    points = [{"a": float(a)} for a in generator.integers(0, 2, size=200)]
    found = importance(points, [point["a"] for point in points])
    assert shares(found)["a"] == pytest.approx(2, abs=0.25)


def test_noise_alone_explains_nothing_and_says_so() -> None:
    generator = np.random.default_rng(1)
    points = [{"a": float(generator.random()), "b": float(generator.random())} for _ in range(30)]
    found = importance(points, generator.random(30).tolist())
    assert max(abs(share) for share in shares(found).values()) < 0.25
    assert found.warning is not None
    assert "little better" in found.warning


@pytest.mark.parametrize("seed", range(3))
def test_conditional_parameters_count_where_they_are(seed: int) -> None:
    """A period that matters exists for one kind only; so does one that does not matter."""
    generator = np.random.default_rng(seed)
    points: list[dict[str, Any]] = []
    values = []
    for _ in range(48):
        point: dict[str, Any] = {"noise": float(generator.random())}
        if generator.random() < 0.5:
            point |= {"kind": "gradual", "period": float(generator.random())}
            point |= {"idle": float(generator.random())}
            values.append(point["period"])
        else:
            point["kind"] = "full"
            values.append(0.0)
        points.append(point)
    by_name = shares(importance(points, values))
    assert by_name["kind"] > 0.3
    assert by_name["period"] > 0.1
    assert abs(by_name["idle"]) < 0.08
    assert abs(by_name["noise"]) < 0.08


def test_same_trials_same_importance_and_another_order_of_names_too() -> None:
    points, values = drawn(20, seed=3)
    shuffled = [dict(reversed(point.items())) for point in points]
    assert importance(points, values) == importance(shuffled, values)


def test_importance_is_refused_with_a_reason() -> None:
    points, values = drawn(7, seed=0)
    assert importance(points, values).reason == "7 ended trials have the metric, and at least 8 are needed"
    points, _ = drawn(9, seed=0)
    assert importance(points, [0.5] * 9).reason == "the metric is 0.5 in all 9 trials"
    same = importance([{"a": 1}] * 9, list(range(9)))
    assert same.reason == "no parameter differs between the trials"
    assert same.parameters == []


def test_nothing_heavy_is_loaded_with_the_package() -> None:
    code = (
        "import sys, temper.tradeoff, temper.explain\n"
        "heavy = {'torch', 'ray', 'sklearn', 'scipy', 'optuna', 'vl_convert'} & set(sys.modules)\n"
        "sys.exit(f'loaded {heavy}' if heavy else 0)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
