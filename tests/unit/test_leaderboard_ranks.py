"""Ranks are shared by what cannot be told apart, and only what can be trusted is ranked."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from temper.cli.results import board_table
from temper.cli.show import finish
from temper.errors import RecordError
from temper.leaderboard import Board, build_leaderboard
from temper.records import read_columns, read_outcomes
from temper.statistics import mcnemar, pairwise_mid_p, pairwise_unpaired_p, shared_ranks


def one_board(folder: Path, **options: Any) -> Board:
    summary = build_leaderboard([folder], folder.parent / "out", **options)
    assert len(summary.boards) == 1
    return summary.boards[0]


def first(count: int, total: int = 200) -> np.ndarray:
    return np.arange(total) < count


@pytest.mark.parametrize("seed", range(3))
def test_pairwise_p_values_are_mcnemar_s(seed: int) -> None:
    answers = np.random.default_rng(seed).random((7, 40)) < np.linspace(0.2, 0.9, 7)[:, None]
    answers[3] = answers[2]
    found = pairwise_mid_p(answers)
    for i, a in enumerate(answers):
        for j, b in enumerate(answers):
            expected = mcnemar(int((a & ~b).sum()), int((b & ~a).sum())).mid
            assert found[i, j] == pytest.approx(expected, abs=1e-12)
    assert found[2, 3] == 1


def test_unpaired_p_values_are_those_of_two_proportions() -> None:
    """Against the formula: z = (0.62 - 0.48) / sqrt(0.55 * 0.45 * (1/50 + 1/50))."""
    found = pairwise_unpaired_p(np.array([31.0, 24.0, 50.0, 50.0]), np.full(4, 50.0))
    z = (0.62 - 0.48) / math.sqrt(0.55 * 0.45 * (1 / 50 + 1 / 50))
    assert found[0, 1] == found[1, 0] == pytest.approx(math.erfc(z / math.sqrt(2)))
    assert found[2, 3] == found[0, 0] == 1


def test_a_rank_is_one_more_than_those_surely_better() -> None:
    """Holm for the fourth: 0.01 * 3, 0.02 * 2 and then 0.9; two models are surely better than it."""
    p = np.ones((5, 5))
    p[0, 1], p[0, 2], p[1, 2] = 0.2, 0.02, 0.5
    p[0, 3], p[1, 3], p[2, 3] = 0.01, 0.02, 0.9
    assert shared_ranks(p) == [1, 1, 2, 3, 3]  # the last is never ahead of the one before it
    p[1, 3] = 0.03
    assert shared_ranks(p)[3] == 2  # 0.03 * 2 is above 0.05
    assert shared_ranks(np.ones((0, 0))) == []


def test_models_that_a_paired_test_cannot_tell_apart_share_a_rank(vary: Any, tmp_path: Path) -> None:
    vary(tmp_path / "in", "best", first(150))
    vary(tmp_path / "in", "nearly", np.roll(first(148), 10))  # 8 images against 10: McNemar sees nothing
    vary(tmp_path / "in", "far", first(90))
    board = one_board(tmp_path / "in")
    assert [(e.name, e.rank, e.is_tied) for e in board.entries] == [
        ("best", 1, True), ("nearly", 1, True), ("far", 3, False),
    ]  # fmt: skip
    assert board.num_unpaired == 0


def test_pairs_see_what_totals_do_not(vary: Any, tmp_path: Path) -> None:
    """12 of 200 images, all in favour of one: p is 0.0005 in pairs and 0.2 from the totals."""
    better, worse = vary(tmp_path / "in", "a", first(112)), vary(tmp_path / "in", "b", first(100))
    assert [entry.rank for entry in one_board(tmp_path / "in").entries] == [1, 2]
    worse.with_name("outcomes.parquet").unlink()
    board = one_board(tmp_path / "in")
    assert [(e.rank, e.status) for e in board.entries] == [(1, "ok"), (1, "no outcomes")]
    assert board.num_unpaired == 1
    assert "1 model without outcomes" in " ".join((tmp_path / "out/index.html").read_text().split())
    assert better.exists()


def test_ranks_do_not_depend_on_the_order_of_files(vary: Any, tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    answers = [generator.random(60) < level for level in generator.random(12)]
    for place, robust in enumerate(answers):
        vary(tmp_path / "in", f"m{place}", robust)
        vary(tmp_path / "reversed", f"z{11 - place}/m{place}", robust, name=f"m{place}")
    one, other = (
        [(e.name, e.rank) for e in one_board(tmp_path / where).entries] for where in ("in", "reversed")
    )
    assert one == other
    assert [rank for _, rank in one] == sorted(rank for _, rank in one)


def test_blocked_and_unverified_entries_stand_apart_with_the_reason(vary: Any, tmp_path: Path) -> None:
    vary(tmp_path / "in", "honest", first(100))
    failed = {"name": "black box", "passed": False, "detail": "Square found more"}
    path = vary(tmp_path / "in", "masked", first(190), status="blocked")
    change(path, gates=[failed])
    # A gate failed, whatever the status says.
    change(vary(tmp_path / "in", "sly", first(180)), gates=[failed])
    liar = vary(tmp_path / "in", "liar", first(120))
    document = json.loads(liar.read_text())
    document["robust_acc"] |= {"value": 0.9, "count": 180}
    liar.write_text(json.dumps(document))
    swapped = vary(tmp_path / "in", "swapped", first(130))
    swapped.with_name("outcomes.parquet").write_bytes((path.with_name("outcomes.parquet")).read_bytes())
    board = one_board(tmp_path / "in")
    assert [entry.name for entry in board.entries] == ["honest"]
    assert {entry.name: entry.reasons for entry in board.blocked} == {
        "masked": ["black box: Square found more"], "sly": ["black box: Square found more"],
    }  # fmt: skip
    reasons = {entry.name: entry.reasons[0] for entry in board.unverified}
    assert "claims robust accuracy 0.9000 (180 of 200 images), its outcomes say 120 of 200" in reasons["liar"]
    assert "the SHA-256 differs" in reasons["swapped"]
    page = " ".join((tmp_path / "out/index.html").read_text().split())
    for words in ("black box: Square found more", "its outcomes say 120 of 200", "(the SHA-256 differs)"):
        assert words in page
    assert all(entry.rank is None for entry in (*board.blocked, *board.unverified))


def change(path: Path, **fields: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))


def test_the_front_has_what_nothing_beats_in_both(vary: Any, tmp_path: Path) -> None:
    for name, clean, robust in (
        ("a", 190, 60),
        ("b", 180, 90),
        ("c", 180, 80),
        ("d", 120, 90),
        ("e", 110, 100),
    ):
        vary(tmp_path / "in", name, first(robust), first(clean))
    found = {entry.name: entry.is_pareto for entry in one_board(tmp_path / "in").entries}
    assert found == {"a": True, "b": True, "c": False, "d": False, "e": True}


def test_columns_read_quickly_are_those_of_the_table(vary: Any, tmp_path: Path) -> None:
    generator = np.random.default_rng(1)
    path = vary(tmp_path, "a", generator.random(77) < 0.5).with_name("outcomes.parquet")
    table = read_outcomes(path)
    for name, column in read_columns(path, table.column_names).items():
        assert column.tolist() == table[name].to_pylist()
    with pytest.raises(RecordError, match="no column 'speed'"):
        read_columns(path, ["speed"])
    path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(RecordError, match="not readable as outcomes"):
        read_columns(path, ["row"])


@pytest.mark.parametrize("width", [60, 80, 200])
def test_numbers_on_the_console_survive_long_names(
    vary: Any, tmp_path: Path, width: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    long = "chestxray14-resnet18-pgd-eps4-255-steps10-lr0.001-gradual-seed"
    vary(tmp_path, f"{long}0", np.arange(50) < 40)
    vary(tmp_path, f"{long}1", np.arange(50) < 5)
    vary(tmp_path, "of-other-images", np.arange(30) < 15)
    summary = build_leaderboard([tmp_path], tmp_path / "out")
    finish({}, board_table(summary), as_json=False)
    out = capsys.readouterr().out
    assert max(map(len, out.splitlines())) <= width
    assert out.count("rank") == 2, "a table for each board"
    assert "50 images" in out
    assert "30 images" in out
    for numbers in ("80.0 (67.0–88.8)", "10.0 (4.3–21.4)", "50.0 (33.2–66.8)"):
        assert numbers in out
    assert "".join(line.split("│")[1].strip() for line in out.splitlines() if "│" in line).count(long) == 2
    assert ("schedule" in out) == (width == 200)
