"""The demo, whole: what `make demo` promises, and the page it ends in, in a real browser."""

import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import pytest

from temper.cluster.sweep import Watch
from temper.demo import DemoResult, run_demo
from temper.errors import CheckpointError
from temper.recipe import load_recipe
from temper.records import LedgerRow, SweepFolder, read_ledger, read_record

CHROMIUM = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None
)


@pytest.fixture(scope="module")
def seen() -> list[LedgerRow]:
    return []


@pytest.fixture(scope="module")
def demo(ray_cluster: None, tmp_path_factory: pytest.TempPathFactory, seen: list[LedgerRow]) -> DemoResult:
    """As in `make demo`, but for fewer images that are attacked."""
    out = tmp_path_factory.mktemp("demo") / "demo"
    changes = {"evaluation.max_images": 60, "validation.max_images": 60}
    return run_demo(out, changes, watch=Watch(on_trial=lambda row, total: seen.append(row)))


def test_the_best_hardened_model_beats_the_baseline_by_20_points(demo: DemoResult) -> None:
    entries = {entry.name: entry for entry in demo.leaderboard.boards[0].entries}
    baseline, probe = entries.pop("digits-baseline"), entries.pop("digits-probe")
    assert probe.baseline == "linear probe"
    assert probe.robust_acc <= baseline.robust_acc + 0.1
    best = demo.leaderboard.boards[0].entries[0]
    assert best.name in entries
    assert best.robust_acc >= baseline.robust_acc + 0.2
    assert best.robust_low > baseline.robust_high
    assert len(entries) == 3


def test_the_sweep_leaves_a_ledger_and_records_that_agree(demo: DemoResult, seen: list[LedgerRow]) -> None:
    folder = SweepFolder(demo.page.parents[1])
    rows = read_ledger(folder.ledger)
    assert sorted(row.trial for row in rows) == sorted(row.trial for row in seen)
    assert [row.trial for row in rows].count("baseline") == 1
    assert {row.status for row in rows} <= {"finished", "stopped"}
    assert len(list(folder.pretrain.iterdir())) == len(list(folder.probe.iterdir())) == 1
    for name in demo.sweep.finalists:
        record = read_record(folder.trial(name).record)
        assert record.recipe_hash == next(row.recipe_hash for row in rows if row.trial == name)
        assert record.status == "ok"
        assert load_recipe(folder.trial(name).recipe).tracking.group == "digits-sweep"
    assert demo.report == folder.report / "sweep.html"
    assert "Pareto front" in demo.report.read_text()
    summary = json.loads(folder.summary.read_text())
    assert (summary["num_trials"], summary["num_failed"]) == (len(rows), 0)


def test_a_second_demo_does_not_touch_the_first(demo: DemoResult) -> None:
    with pytest.raises(CheckpointError, match="already exists"):
        run_demo(demo.page.parents[2])


def browse(page: Path, profile: Path) -> str:
    """The document after a headless browser has shown it."""
    if CHROMIUM is None:
        pytest.skip("no chromium on the PATH")
    flags = [
        "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
        "--disable-background-networking", "--disable-component-update", "--disable-sync",
        "--allow-file-access-from-files", "--virtual-time-budget=3000",
        f"--user-data-dir={profile}", "--dump-dom", page.resolve().as_uri(),
    ]  # fmt: skip
    result = subprocess.run([CHROMIUM, *flags], capture_output=True, text=True, check=True, timeout=120)
    return result.stdout


class Text(HTMLParser):
    def __init__(self, html: str) -> None:
        super().__init__()
        self.words: list[str] = []
        self.feed(html)

    def handle_data(self, data: str) -> None:
        self.words.append(data)


def test_the_page_shows_every_entry_in_a_browser(demo: DemoResult, tmp_path: Path) -> None:
    text = " ".join(" ".join(Text(browse(demo.page, tmp_path)).words).split())
    for entry in demo.leaderboard.boards[0].entries:
        assert entry.name in text
        assert f"{100 * entry.robust_acc:.1f}" in text
        assert f"{100 * entry.clean_acc:.1f}" in text


def test_the_page_fits_a_telephone(demo: DemoResult, tmp_path: Path) -> None:
    """In a frame of 390 px nothing but the tables, which scroll by themselves, is wider than the frame."""
    report = "<script>onload = () => parent.postMessage(document.documentElement.scrollWidth, '*')</script>"
    # The page forbids scripts; this copy of it may have ours.
    page = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", demo.page.read_text())
    (tmp_path / "page.html").write_text(page + report)
    (tmp_path / "frame.html").write_text(
        "<body><iframe src='page.html' width='390' height='800' style='border:0'></iframe>"
        "<script>onmessage = (event) => { document.title = 'width=' + event.data }</script>"
    )
    width = re.search(r"width=(\d+)", browse(tmp_path / "frame.html", tmp_path / "profile"))
    assert width is not None
    assert int(width[1]) <= 390


def test_links_of_the_page_lead_to_files(demo: DemoResult) -> None:
    text = re.sub(r"<script.*?</script>", "", demo.page.read_text(), flags=re.DOTALL)
    for target in re.findall(r'<a href="([^"#]+)"', text):
        assert (demo.page.parent / target).exists(), target
