import csv
import html
import json
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from temper.errors import RecordError, UsageError
from temper.leaderboard import build_leaderboard
from temper.leaderboard.describe import describe_adversary, describe_schedule
from temper.records import Metrics, MetricsRecord, read_record, write_once
from temper.spec import Threat

EVIL = "<script>alert('x')</script>\"'|`{{7*7}}\u202e" + "n" * 160


def write(folder: Path, record: Any, name: str, **changes: Any) -> Path:
    path = folder / name / "record.json"
    path.parent.mkdir(parents=True)
    # Their outcomes are not beside them, so they are ranked by their totals.
    path.write_text(record.model_copy(update={"name": name, **changes}).model_dump_json())
    return path


def share(record: Any, field: str, value: float) -> Any:
    return getattr(record, field).model_copy(update={"value": value})


def test_only_the_comparable_is_ranked_together(evaluated_run: Path, tmp_path: Path) -> None:
    record = read_record(evaluated_run / "record.json")
    write(tmp_path, record, "weak", robust_acc=share(record, "robust_acc", 0.1))
    write(tmp_path, record, "strong", robust_acc=share(record, "robust_acc", 0.9))
    write(tmp_path, record, "other", threat=Threat(eps=0.05))
    write(tmp_path, record, "masked", status="blocked", robust_acc=share(record, "robust_acc", 1.0))
    summary = build_leaderboard([tmp_path], tmp_path / "out")
    boards = {board.threat.eps: board for board in summary.boards}
    assert [(entry.rank, entry.name) for entry in boards[0.1].entries] == [(1, "strong"), (2, "weak")]
    assert [(entry.rank, entry.name) for entry in boards[0.1].blocked] == [(None, "masked")]
    assert [entry.name for entry in boards[0.05].entries] == ["other"]
    entry = json.loads((tmp_path / "out/leaderboard.json").read_text())["boards"][0]["entries"][0]
    assert {"clean_acc", "clean_low", "clean_high", "robust_acc", "robust_low", "robust_high"} <= set(entry)
    assert isinstance(entry["robust_acc"], float)
    assert {row["name"] for row in csv_rows(tmp_path / "out")} == {"weak", "strong", "other", "masked"}


def test_metrics_of_new_and_old_records_are_shown(evaluated_run: Path, tmp_path: Path) -> None:
    record = read_record(evaluated_run / "record.json")
    metrics = MetricsRecord(
        clean=Metrics(balanced_acc=0.9, macro_f1=0.871, auroc=0.982, ece=0.031),
        robust=Metrics(balanced_acc=0.4, macro_f1=0.353, auroc=0.714, ece=0.226),
    )
    write(tmp_path, record, "new", metrics=metrics, auroc=0.982)
    write(tmp_path, record, "old", metrics=None, auroc=None)
    build_leaderboard([tmp_path], tmp_path / "out")
    page = (tmp_path / "out/index.html").read_text()
    for cell in ("87.1 / 35.3", "98.2 / 71.4", "3.1 / 22.6", "– / –"):
        assert f"<td>{cell}</td>" in page
    rows = {row["name"]: row for row in csv_rows(tmp_path / "out")}
    names = ["macro_f1", "robust_macro_f1", "auroc", "robust_auroc", "ece", "robust_ece"]
    assert [rows["new"][name] for name in names] == ["0.871", "0.353", "0.982", "0.714", "0.031", "0.226"]
    assert [rows["old"][name] for name in names] == [""] * 6


def csv_rows(out: Path) -> list[dict[str, str]]:
    return list(csv.DictReader((out / "leaderboard.csv").read_text().splitlines()))


class Page(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.addresses: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href", "action")]


def test_hostile_names_do_no_harm_and_nothing_is_fetched(evaluated_run: Path, tmp_path: Path) -> None:
    record = read_record(evaluated_run / "record.json")
    data = record.data.model_copy(update={"name": EVIL, "classes": [EVIL, "b"]})
    write(tmp_path, record.model_copy(update={"data": data}), "plain")
    path = tmp_path / "evil/record.json"
    path.parent.mkdir()
    path.write_text(record.model_copy(update={"name": EVIL, "data": data}).model_dump_json())
    build_leaderboard([tmp_path], tmp_path / "out")
    pages = [tmp_path / "out/index.html", *(tmp_path / "out/models").glob("*.html")]
    assert len(pages) == 3
    for path in pages:
        text, page = path.read_text(), Page()
        page.feed(text)
        assert "<script>alert" not in text
        assert "{{7*7}}" in text
        assert not [
            address for address in page.addresses if address.startswith(("http", "//", "javascript:"))
        ]
        files = [address for address in page.addresses if not address.startswith(("#", "data:"))]
        assert all((path.parent / address).exists() for address in files)
    markdown = (tmp_path / "out/leaderboard.md").read_text()
    assert "<script" not in markdown
    assert "\u202e" not in markdown


def test_broken_and_repeated_records_are_reported(evaluated_run: Path, tmp_path: Path) -> None:
    record = read_record(evaluated_run / "record.json")
    good = write(tmp_path, record, "good")
    for name, content in {"same": good.read_text(), "old": '{"schema_version": 0}', "cut": "{"}.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "record.json").write_text(content)
    summary = build_leaderboard([tmp_path], tmp_path / "out")
    reasons = {Path(item.path).parent.name: item.reason for item in summary.skipped}
    assert reasons["old"] == "schema version 0, this temper reads 1"
    assert "not readable as JSON" in reasons["cut"]
    assert len(reasons) == 3
    assert "schema version 0" in (tmp_path / "out/index.html").read_text()


def test_same_records_same_bytes(evaluated_run: Path, tmp_path: Path) -> None:
    record = read_record(evaluated_run / "record.json")
    write(tmp_path, record, "a")
    for _ in range(2):
        build_leaderboard([tmp_path / "a"], tmp_path / "out")
        files = {path.name: path.read_bytes() for path in (tmp_path / "out").rglob("*.*")}
        cards = {name for name in files if re.fullmatch(r"a-[0-9a-f]{8}\.html", name)}
        exports = {f"leaderboard.{kind}" for kind in ("md", "csv", "json", "schema.json")}
        assert set(files) == {"index.html", *exports, *cards}
        assert len(cards) == 1
    build_leaderboard([tmp_path / "a"], tmp_path / "out")
    assert files == {path.name: path.read_bytes() for path in (tmp_path / "out").rglob("*.*")}


def test_nothing_to_rank(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such file or folder"):
        build_leaderboard([tmp_path / "nowhere"], tmp_path / "out")
    with pytest.raises(RecordError, match=r"no record.json found; create one with `temper evaluate RUN`"):
        build_leaderboard([tmp_path], tmp_path / "out")


def test_a_record_is_written_once(tmp_path: Path) -> None:
    write_once(tmp_path / "r.json", "first")
    with pytest.raises(RecordError, match="exists"):
        write_once(tmp_path / "r.json", "second")
    assert (tmp_path / "r.json").read_text() == "first"


@pytest.mark.parametrize("arguments", [["--help"], ["leaderboard", "{run}", "--out", "{out}"]], ids=str)
def test_light_commands_load_neither_torch_nor_ray(
    arguments: list[str], evaluated_run: Path, tmp_path: Path
) -> None:
    filled = [a.format(run=evaluated_run, out=tmp_path / "out") for a in arguments]
    code = (
        "import sys; from temper.cli import main\n"
        f"try: main({filled!r})\nexcept SystemExit as end: assert not end.code, end.code\n"
        "heavy = {'torch', 'ray', 'foolbox', 'wandb', 'sklearn', 'torchvision'} & set(sys.modules)\n"
        "sys.exit(f'loaded {heavy}' if heavy else 0)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize(
    ("schedule", "shown"),
    [
        ({"kind": "full", "group_decay": 2.0}, "full"),
        ({"kind": "gradual", "group_decay": 1.0, "epochs_per_group": 2}, "gradual(2)"),
        ({"kind": "roli", "head_frac": 0.25}, "roli(0.25)"),
        ({"kind": "phases", "phases": [{}, {}]}, "phases(2)"),
        ({"kind": "one of the future", "speed": 9}, "one of the future"),
        (None, "unknown"),
    ],
)
def test_schedules_are_named_by_what_tells_them_apart(schedule: Any, shown: str) -> None:
    assert describe_schedule(schedule) == shown


@pytest.mark.parametrize(
    ("adversary", "shown"),
    [
        ({"kind": "pgd", "norm": "linf", "eps": 8 / 255, "awp": None}, "pgd 8/255"),
        ({"kind": "trades", "norm": "l2", "eps": 0.5, "awp": {"gamma": 0.005}}, "trades+awp l2 0.5"),
        ({"kind": "pgd", "eps": 0.0}, "none"),
        (None, "none"),
    ],
)
def test_adversaries_are_named_with_norm_and_eps(adversary: Any, shown: str) -> None:
    assert describe_adversary(adversary) == shown


def test_attacks_that_not_every_model_met_have_no_column(evaluated_run: Path, tmp_path: Path) -> None:
    """Gates attack further where they must; the suite is what all entries share."""
    record = read_record(evaluated_run / "record.json")
    extra = record.attacks[-1].model_copy(update={"name": "more steps", "robust_acc_after": 0.0})
    write(tmp_path, record, "plain")
    write(tmp_path, record, "examined", attacks=[*record.attacks, extra])
    summary = build_leaderboard([tmp_path / "plain", tmp_path / "examined"], tmp_path / "out")
    names = summary.boards[0].attack_names
    assert "more steps" not in names
    assert names[: len(record.attacks)] == [attack.name for attack in record.attacks]
    page = (tmp_path / "out/index.html").read_text()
    assert f"after {names[0]}" in page
    assert "after more steps" not in page


@pytest.mark.parametrize(
    "recipe",
    [
        {},
        {"objective": [1], "schedule": 5},
        {"objective": {"adversary": "pgd", "alpha": "much"}, "schedule": {"kind": ["a"]}},
        {
            "objective": {"adversary": {"kind": None, "eps": 1e300}, "alpha": 10**400},
            "schedule": {"kind": "gradual"},
        },
        {"objective": {"adversary": {"eps": "8/255"}}, "model": None, "data": "<b>"},
        {"shards": "a; rm -rf /", "model": "$(x)"},
    ],
    ids=str,
)
def test_recipes_of_another_version_are_not_relied_on(
    recipe: dict[str, Any], evaluated_run: Path, tmp_path: Path
) -> None:
    record = read_record(evaluated_run / "record.json")
    write(tmp_path, record, "odd", recipe=recipe, per_class={"a": {}}, gates=[], environment={})
    write(tmp_path, record, " ", attacks=[], per_class={}, recipe=recipe)
    summary = build_leaderboard([tmp_path], tmp_path / "out")
    assert len(summary.boards[0].entries) == 2
    assert "(no name)" in (tmp_path / "out/index.html").read_text()
    assert "$(x)" not in recipe.values() or "temper evaluate '$(x)' --data 'a; rm -rf /'" in "".join(
        html.unescape(card.read_text()) for card in (tmp_path / "out/models").iterdir()
    )


def test_many_boards_and_large_pictures_stay_within_bounds(evaluated_run: Path, tmp_path: Path) -> None:
    """40 boards with pictures of 350 kB each, as base64 500 kB: two of them fit."""
    record = read_record(evaluated_run / "record.json")
    for number in range(40):
        data = record.data.model_copy(update={"fingerprint": f"{number:016d}"})
        path = write(tmp_path, record, f"m{number}", data=data)
        path.with_name("figure.png").write_bytes(b"\x89PNG" + bytes(350_000))
    build_leaderboard([tmp_path], tmp_path / "out")
    page = (tmp_path / "out/index.html").read_text()
    assert page.count("data:image/png") == 2
    assert page.count("Beyond accuracy") == 8
    assert page.count('class="ranking"') == 40
    assert len(page) < 3_000_000
    cards = list((tmp_path / "out/models").iterdir())
    assert all("data:image/png" in card.read_text() for card in cards)


def test_boards_of_one_title_differ_in_their_headings(evaluated_run: Path, tmp_path: Path) -> None:
    record = read_record(evaluated_run / "record.json")
    write(tmp_path, record, "plain")
    larger = record.data.model_copy(update={"image_size": 16})
    write(tmp_path, record, "larger", data=larger)
    longer = record.suite.model_copy(update={"name": "standard-linf", "hash": "f" * 16})
    write(tmp_path, record, "longer", suite=longer)
    write(tmp_path, record, "apart", threat=Threat(eps=0.05))
    build_leaderboard([tmp_path], tmp_path / "out")
    page = (tmp_path / "out/index.html").read_text()
    headings = [re.sub("<.*?>", "", text) for text in re.findall(r'<h2 id="board-\d+">(.*?)</h2>', page)]
    assert len(set(headings)) == len(headings) == 4
    assert f"{record.data.name}, Linf 0.05" in headings  # nothing else is called so
    assert any("16 px" in one for one in headings)
    assert any("suite standard-linf" in one for one in headings)
    markdown = (tmp_path / "out/leaderboard.md").read_text()
    titles = [line for line in markdown.splitlines() if line.startswith("## ")]
    assert len(set(titles)) == len(titles) == 4


def test_the_points_of_the_front_are_named_in_the_picture_and_in_the_live_chart(
    vary: Any, tmp_path: Path
) -> None:
    """Those whose names would cover one another share a name; what is behind the front has a tooltip."""
    stands = {"behind": (60, 90), "robust": (140, 150), "clean": (20, 180), "like clean": (20, 180)}
    for name, (robust, correct) in stands.items():
        vary(tmp_path, name, [i < robust for i in range(200)], [i < correct for i in range(200)])
    build_leaderboard([tmp_path], tmp_path / "out")
    page = (tmp_path / "out/index.html").read_text()
    specs = [json.loads(s) for s in re.findall(r'class="chart-spec">(.*?)</script>', page, re.DOTALL)]
    points = next(spec for spec in specs if "is_right" in json.dumps(spec))["data"]["values"]
    named = {point["label"]: point["is_right"] for point in points if "label" in point}
    assert len(named) == 2
    assert named["robust"] is False
    assert named.get("clean", named.get("like clean")) is True
    assert set(re.findall(r'<text class="label".*?>(.*?)</text>', page)) == set(named)
