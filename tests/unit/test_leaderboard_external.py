"""Published results beside measured models: shown, and without any part in ranks, fronts and tests."""

import csv
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from temper.leaderboard import LeaderboardSummary, build_leaderboard
from temper.leaderboard.exports import COLUMNS, PLACE, to_rows
from temper.leaderboard.import_entries import import_entries
from temper.records import EXTERNAL
from temper.spec import Threat

EVIL = "<script>alert(1)</script> | `x` {{7*7}} \"' =cmd()"


def publish(folder: Path, model: str, norm: str = "Linf", /, **changes: Any) -> Path:
    path = folder / norm / f"{model}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    document = {
        "link": "https://example.org/paper?a=1&b=2", "name": "An Invented Defence", "authors": "Jane Doe",
        "additional_data": True, "number_forward_passes": 1, "dataset": "Digits-Target",
        "venue": "Nowhere 2026", "architecture": "WRN-70-16", "eps": 0.1, "clean_acc": "99.00",
        "reported": "98.00", "autoattack_acc": "97.00",
    }  # fmt: skip
    path.write_text(json.dumps({**document, **changes}))
    return path


@pytest.fixture
def own(vary: Any, tmp_path: Path) -> Path:
    """Two models that were measured, of 70 and 40 % robust accuracy, within Linf 0.1."""
    for name, robust in (("mine", 70), ("plain", 40)):
        vary(tmp_path / "runs", name, np.arange(100) < robust)
    return tmp_path / "runs"


def build(*places: Path) -> tuple[LeaderboardSummary, Path]:
    out = places[0].parent / "out"
    return build_leaderboard(list(places), out), out


def rows_of_csv(out: Path) -> dict[str, dict[str, str]]:
    return {row["name"]: row for row in csv.DictReader((out / "leaderboard.csv").read_text().splitlines())}


def test_measured_models_are_ranked_as_if_nothing_was_published(own: Path, tmp_path: Path) -> None:
    alone, _ = build(own)
    for place, number in enumerate(range(60, 90, 5)):
        publish(tmp_path / "info", f"Paper{place}", clean_acc="99.9", autoattack_acc=f"{number}.0")
    import_entries([tmp_path / "info"], tmp_path / "board")
    both, out = build(own, tmp_path / "board")
    assert both.boards == alone.boards
    (board,) = both.boards
    assert [(entry.name, entry.rank, entry.is_pareto) for entry in board.entries] == [
        ("mine", 1, True),
        ("plain", 2, False),
    ]
    assert [entry.name for entry in both.external[0].entries] == [
        f"Paper{place}" for place in (5, 4, 3, 2, 1, 0)
    ]
    page = (out / "index.html").read_text()
    chart = page[page.index('class="charts"') : page.index("Robust accuracy per class")]
    assert "mine" in chart
    assert "Paper" not in chart


def test_they_stand_between_measured_models_and_say_what_they_are(own: Path, tmp_path: Path) -> None:
    publish(tmp_path / "info", "Above")
    publish(
        tmp_path / "info", "Between", autoattack_acc="55", external="50", unreliable=True, footnote="By Eve."
    )
    publish(tmp_path / "info", "Claimed", autoattack_acc="")
    import_entries([tmp_path / "info"], tmp_path / "board")
    _, out = build(own, tmp_path / "board")
    markdown = (out / "leaderboard.md").read_text()
    rows = [line.split(" | ") for line in markdown.splitlines() if line.startswith(("| 1 ", "| 2 ", "| – "))]
    assert [(row[0], row[1], row[3][:4].strip()) for row in rows] == [
        ("| –", "*Above* (not measured here)", "97.0"),
        ("| 1", "mine", "70.0"),
        ("| –", "*Between* (not measured here)", "50.0"),
        ("| 2", "plain", "40.0"),
        ("| –", "*Claimed* (not measured here)", "–"),
    ]
    assert "## Not measured here: Digits-Target, Linf 0.1" in markdown
    assert (
        "| Between | 99.0 | 50.0 | external evaluation, flagged as unreliable | 98.0 | yes | WRN-70-16 | "
        "Nowhere 2026 | An Invented Defence <https://example.org/paper?a=1&b=2> | By Eve. |" in markdown
    )
    assert "| Claimed | 99.0 | – | authors' report only | 98.0 |" in markdown
    page = (out / "index.html").read_text()
    ranking = page[page.index('class="ranking"') : page.index("</table>")]
    names = re.findall(
        r'<tr( class="external")? [^>]*data-s="([^"]*)"[^>]*>.*?<bdi>(\w+)</bdi>', ranking, re.DOTALL
    )
    assert names == [
        (' class="external"', "not measured here", "Above"),
        ("", "ok", "mine"),
        (' class="external"', "not measured here", "Between"),
        ("", "ok", "plain"),
        (' class="external"', "not measured here", "Claimed"),
    ]
    widths = {row.count("<td") + row.count("<th") for row in re.findall(r"<tr.*?</tr>", ranking, re.DOTALL)}
    assert len(widths) == 1
    assert "2 models on 1\nboard, as of" in page
    assert "plus 3 published results, in grey, not measured here." in page
    csv_rows = rows_of_csv(out)
    assert csv_rows["Between"] | {
        "rank": "", "status": "not measured here", "data": "Digits-Target", "fingerprint": "", "suite": "",
        "norm": "linf", "eps": "0.1", "robust_acc": "0.5", "autoattack_acc": "0.55", "robust_low": "",
        "backbone": "WRN-70-16", "publisher": "RobustBench", "is_unreliable": "True", "venue": "Nowhere 2026",
        "evaluated_with": "external evaluation", "link": "https://example.org/paper?a=1&b=2",
    } == csv_rows["Between"]  # fmt: skip
    assert csv_rows["Claimed"]["robust_acc"] == ""
    assert csv_rows["mine"]["publisher"] == ""


def test_other_norms_eps_and_data_sets_are_tables_of_their_own(vary: Any, own: Path, tmp_path: Path) -> None:
    vary(tmp_path / "runs", "other", np.arange(100) < 30, threat=Threat(eps=8 / 255))
    for name, norm, changes in (
        ("Same", "Linf", {}),
        ("Eps", "Linf", {"eps": "0.0999"}),
        ("Norm", "L2", {}),
        ("Data", "Linf", {"dataset": "digits"}),
        ("Decimal", "Linf", {"eps": "0.03137254901960784"}),  # 8/255
        ("Almost", "Linf", {"eps": "0.031"}),
    ):
        publish(tmp_path / "info", name, norm, **changes)
    import_entries([tmp_path / "info"], tmp_path / "board")
    summary, out = build(own, tmp_path / "board")
    assert len(summary.boards) == 2
    assert len(summary.external) == 6
    sections = re.split("<section ", (out / "index.html").read_text())[1:]
    shown = [re.findall(r'<tr class="external"[^>]*>.*?<bdi>(\w+)</bdi>', one, re.DOTALL) for one in sections]
    assert shown[:2] == [["Decimal"], ["Same"]]
    assert sorted(name for (name,) in shown[2:]) == ["Almost", "Data", "Decimal", "Eps", "Norm", "Same"]
    alone = "No model was measured here on a data set of this name within this threat model."
    assert [alone in one for one in sections[2:]] == [
        name not in ("Same", "Decimal") for (name,) in shown[2:]
    ]


def test_with_data_a_published_table_stands_beside_a_set_of_another_name(own: Path, tmp_path: Path) -> None:
    path = publish(tmp_path / "info", "Same", dataset="cifar10")
    import_entries([path], tmp_path / "board", data_name="digits_target")
    summary, out = build(own, tmp_path / "board")
    assert summary.external[0].data_name == "digits_target"
    assert summary.external[0].entries[0].dataset == "cifar10"
    assert "Same" in (out / "leaderboard.md").read_text().split("## Not measured here")[0]


def test_hostile_words_are_only_words(own: Path, tmp_path: Path) -> None:
    names = ("name", "authors", "venue", "architecture", "footnote")
    publish(tmp_path / "info", "a|b<i>=", **dict.fromkeys(names, EVIL.replace("<script>", "< script>")))
    import_entries([tmp_path / "info"], tmp_path / "board")
    (path,) = (tmp_path / "board").rglob(EXTERNAL)
    path.write_text(
        json.dumps({**json.loads(path.read_text()), "title": EVIL, "footnote": EVIL, "name": EVIL})
    )
    _, out = build(own, tmp_path / "board")
    page, markdown = (out / "index.html").read_text(), (out / "leaderboard.md").read_text()
    assert "<script>alert" not in page + markdown
    assert "&lt;script&gt;alert(1)" in page
    assert "{{7*7}}" in page
    widths = {line.replace("\\|", "").count("|") for line in markdown.splitlines() if "alert" in line}
    assert widths == {9, 11}


def test_a_wrong_or_repeated_external_record_is_left_out_with_its_reason(own: Path, tmp_path: Path) -> None:
    import_entries([publish(tmp_path / "info", "A")], tmp_path / "board")
    (path,) = (tmp_path / "board").rglob(EXTERNAL)
    for name, content in {
        "copy": path.read_text(),
        "cut": "{",
        "rich": json.dumps({**json.loads(path.read_text()), "rank": 1}),
        "large": " " * 70_000,
    }.items():
        (tmp_path / "z" / name).mkdir(parents=True)
        (tmp_path / "z" / name / EXTERNAL).write_text(content)
    renamed = tmp_path / "other.json"
    renamed.write_text(path.read_text())
    summary, _ = build(own, tmp_path / "board", tmp_path / "z", path, renamed)
    reasons = {Path(one.path).parent.name: one.reason for one in summary.skipped}
    assert "the same model, data set and threat model as" in reasons["copy"]
    assert "not readable as JSON" in reasons["cut"]
    assert "'rank': Extra inputs" in reasons["rich"]
    assert "70,000 bytes; allowed: 65,536" in reasons["large"]
    assert "an external record, published elsewhere" in reasons[tmp_path.name]
    assert len(summary.external[0].entries) == 1


def test_published_results_alone_are_a_page_without_ranks(tmp_path: Path) -> None:
    import_entries([publish(tmp_path / "info", "A")], tmp_path / "board")
    summary, out = build(tmp_path / "board")
    assert (summary.boards, summary.as_of) == ([], "")
    assert "0 models on 0\nboards; plus 1 published result, in grey" in (out / "index.html").read_text()
    before = {path.name: path.read_bytes() for path in out.glob("*.*")}
    build(tmp_path / "board")
    assert {path.name: path.read_bytes() for path in out.glob("*.*")} == before
    rows = [dict(zip([*PLACE, *COLUMNS], row, strict=True)) for row in to_rows(summary)]
    assert [(row["name"], row["rank"]) for row in rows] == [("A", None)]


def test_comparing_with_an_older_board_tells_nothing_of_them(own: Path, tmp_path: Path) -> None:
    _, out = build(own)
    import_entries([publish(tmp_path / "info", "A")], tmp_path / "board")
    summary = build_leaderboard(
        [own, tmp_path / "board"], tmp_path / "new", old=out / "leaderboard.json", require_verified=True
    )
    assert summary.changes is not None
    assert {change.name for change in summary.changes.changes} == {"mine", "plain"}  # no longer ranked
    again = build_leaderboard([own], tmp_path / "newer", old=tmp_path / "new/leaderboard.json")
    assert again.changes is not None
    assert {change.name for change in again.changes.changes} == {"mine", "plain"}


def test_where_no_model_is_ranked_the_published_table_is_linked(vary: Any, tmp_path: Path) -> None:
    path = vary(tmp_path / "runs", "masked", np.ones(50, bool))
    gates = [{"name": "black box", "passed": False, "detail": "found more"}]
    path.write_text(json.dumps({**json.loads(path.read_text()), "status": "blocked", "gates": gates}))
    import_entries([publish(tmp_path / "info", "A")], tmp_path / "board")
    summary, out = build(tmp_path / "runs", tmp_path / "board")
    assert summary.boards[0].entries == []
    page = (out / "index.html").read_text()
    assert "No model of this board is ranked." in page
    assert '<a href="#published-1">published</a> was not measured here' in page
    assert 'id="published-1"' in page
