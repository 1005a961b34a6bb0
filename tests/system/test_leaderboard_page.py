"""The leaderboard's pages in a real browser: sorting, filters, keyboard, paper, names, many models."""

import json
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from temper.leaderboard import LeaderboardSummary, build_leaderboard
from temper.leaderboard.import_entries import import_entries
from temper.leaderboard.pdf import print_pdf
from temper.leaderboard.serve import BoardServer
from temper.records import AdviceRecord, CorruptionRecord, CurvePoint, ThreatRecord
from temper.spec import Threat
from temper.statistics import wilson

CHROMIUM = next(
    (found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))),
    None,
)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium on the PATH")

HOSTILE = (
    "<script>document.title='taken'</script>",
    "\"'><img src=x onerror=document.title='taken'>",
    "</script><svg onload=document.title='taken'>",
    "\u202eتجربة النموذج\u2067",
    "n" * 200,
    "{{ 7 * 7 }} ${document.title='taken'} `|*_#",
)
NUM_IMAGES = 120
TABLE = "table.ranking >> nth=-1"
"""The ranking of the large board, the last one."""


@pytest.fixture(scope="module")
def summary(vary: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[LeaderboardSummary, Path]:
    """A board with everything on it, and the folder of its page."""
    base = tmp_path_factory.mktemp("page")
    draw = np.random.default_rng(5)
    hardness = draw.random(NUM_IMAGES)
    names = ["alpha", "beta", "gamma", "delta", "epsilon", "zeta"]
    for place, name in enumerate([*names, *HOSTILE]):
        robust = hardness < 0.9 - 0.05 * place
        correct = robust | (draw.random(NUM_IMAGES) < 0.3 + 0.05 * place)
        vary(base / "in", f"m{place:02d}", robust, correct, name=name, **further(place, robust, correct))
    failed = [{"name": "black box", "passed": False, "detail": "<b>Square</b> found more"}]
    rewrite(vary(base / "in", "masked", hardness < 0.95), status="blocked", gates=failed)
    vary(base / "in", "l2", hardness < 0.5, threat=Threat(norm="l2", eps=0.5))
    (base / "in/cut").mkdir()
    (base / "in/cut/record.json").write_text("{")
    build_leaderboard([base / "in"], base / "old")
    shutil.rmtree(base / "in/m05")
    vary(base / "in", "m98", hardness < 0.97, name="theta")
    return build_leaderboard([base / "in"], base / "out", old=base / "old/leaderboard.json"), base / "out"


@pytest.fixture(scope="module")
def published(
    summary: tuple[LeaderboardSummary, Path], tmp_path_factory: pytest.TempPathFactory
) -> tuple[LeaderboardSummary, Path]:
    """The same with published results: on the large board, and within a norm of their own."""
    base, runs = tmp_path_factory.mktemp("published"), summary[1].parent / "in"
    hostile = [words for words in HOSTILE if words.isprintable()]  # an import refuses the others
    for place, words in enumerate(["An Invented Defence", "Another One", *hostile]):
        entry = {
            "name": words, "authors": words, "venue": words, "architecture": words, "footnote": words * 4,
            "link": "https://example.org/paper", "dataset": "digits_target", "eps": 0.1, "clean_acc": "95.0",
            "reported": 93 - place, "autoattack_acc": None if place == 1 else f"{88 - 7 * place}",
            "external": "80.5" if place == 0 else None, "unreliable": place == 0,
            "additional_data": place > 2,
        }  # fmt: skip
        for norm in ("Linf", "L1") if place < 2 else ("Linf",):
            (base / norm).mkdir(exist_ok=True)
            (base / norm / f"Doe2026Invented_{place}.json").write_text(json.dumps(entry))
    import_entries([base / "Linf", base / "L1"], base / "board")
    return build_leaderboard([runs, base / "board"], base / "out"), base / "out"


def further(place: int, robust: np.ndarray, correct: np.ndarray) -> dict[str, Any]:
    total, right, standing = len(robust), int(correct.sum()), int(robust.sum())
    found: dict[str, Any] = {
        "curve": [
            CurvePoint(eps=eps, robust_acc=wilson(count, total))
            for eps, count in ((0.0, right), (0.05, (right + standing) // 2), (0.1, standing))
        ],
        "advice": [
            AdviceRecord(kind="not_robust", text=f"{name} {'w' * 300}", option="--set epochs=24")
            for name in HOSTILE[: place % 4]
        ],
        "created": f"2026-03-{20 - place:02d}T00:00:00+00:00",
    }
    if place % 2:
        found["corruptions"] = [
            CorruptionRecord(
                group="common",
                kinds={"fog": [0.9, 0.8, 0.7, 0.5, 0.3], "jpeg": [0.8] * 5},
                mean_acc=0.5 + place / 100,
                relative=0.8,
                num_images=total,
            )
        ]
        other = ThreatRecord(
            threat=Threat(norm="l2", eps=0.5),
            suite="quick-l2",
            robust_acc=wilson(40 + place, total),
            attacks=[],
        )
        found |= {"others": [other], "union_acc": wilson(30 + place, total)}
    return found


def rewrite(path: Path, **fields: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        # Chromium refuses its sandbox to root, as tests in a container run.
        flags = ["--no-sandbox"] if os.geteuid() == 0 else []
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=flags)
        yield browser
        browser.close()


@pytest.fixture
def show(chromium: Any) -> Iterator[Callable[..., Any]]:
    """Opens a page; at the end, it must have said nothing in the console and asked nobody for anything."""
    contexts, complaints = [], []

    def load(address: str | Path, **options: Any) -> Any:
        context = chromium.new_context(**options)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on(
            "request", lambda request: complaints.append(request.url) if is_outside(request.url) else None
        )
        page.goto(address if isinstance(address, str) else address.resolve().as_uri())
        return page

    yield load
    for context in contexts:
        context.close()
    assert not complaints


def is_outside(url: str) -> bool:
    return not url.startswith(("file:", "data:", "http://127.0.0.1:"))


@pytest.fixture
def page(show: Any, summary: Any) -> Any:
    return show(summary[1] / "index.html")


def column(page: Any, number: int) -> list[str]:
    """Text of the visible cells of a column of the large board's ranking."""
    cells = page.locator(f"{TABLE} >> tbody tr:visible > :nth-child({number})")
    return [text.strip() for text in cells.all_inner_texts()]


def test_columns_are_sorted_by_mouse_and_by_keyboard(page: Any) -> None:
    before = column(page, 3)
    clean = page.locator(f"{TABLE} >> thead th:nth-child(3)")
    clean.get_by_role("button").click()
    assert clean.get_attribute("aria-sort") == "descending"
    values = [float(text) for text in column(page, 3)]
    assert values == sorted(values, reverse=True)
    assert values != [float(text) for text in before]
    page.keyboard.press("Enter")  # the button has the focus
    assert clean.get_attribute("aria-sort") == "ascending"
    assert [float(text) for text in column(page, 3)] == sorted(values)
    page.keyboard.press("Shift+Tab")
    page.keyboard.press("Space")
    assert page.locator(f"{TABLE} >> thead th:nth-child(2)").get_attribute("aria-sort") == "ascending"
    assert clean.get_attribute("aria-sort") is None
    names = column(page, 2)
    assert names.index("alpha") < names.index("beta") < names.index("gamma")
    assert "Sorted by model, ascending" in page.locator("p[role=status]").inner_text()


def test_numbers_with_units_and_gaps_sort_as_numbers(page: Any) -> None:
    header = page.locator(f"{TABLE} >> th", has_text="corrupted")
    for order in ("descending", "ascending"):
        header.get_by_role("button").click()
        assert header.get_attribute("aria-sort") == order
        texts = column(page, 6)
        numbers = [float(text) for text in texts if text != "–"]
        assert texts == [
            *(f"{value:.1f}" for value in numbers),
            *["–"] * (len(texts) - len(numbers)),
        ]  # gaps last
        assert numbers == sorted(numbers, reverse=order == "descending")
        assert 0 < len(numbers) < len(texts)


def test_filters_keep_what_fits_and_say_how_many(page: Any, summary: Any) -> None:
    board = summary[0].boards[-1]
    total = sum(len((*b.entries, *b.blocked, *b.unverified)) for b in summary[0].boards)
    page.fill("#filter-text", "ALPHA")
    assert column(page, 2) == ["alpha"]
    assert page.inner_text("#filter-count") == f"1 of {total} models"
    page.fill("#filter-text", "")
    page.select_option("#filter-status", "blocked")
    assert page.locator("tr[data-s]:visible").count() == len(board.blocked) == 1
    page.select_option("#filter-status", "")
    page.select_option("#filter-norm", "l2")
    assert page.locator("section.board:visible h2").all_inner_texts() == ["digits_target, L2 0.5"]
    page.reload()
    assert page.locator("section.board:visible").count() == 1  # kept in the address
    page.get_by_role("button", name="Clear").click()
    page.wait_for_function("document.querySelectorAll('section.board:not([hidden])').length === 2")
    assert page.inner_text("#filter-count") == ""
    page.select_option("#filter-adversary", "pgd 0.1")
    assert page.locator("tr[data-s]:visible").count() == total


def test_what_was_not_measured_is_grey_and_has_no_rank(show: Any, published: Any) -> None:
    page = show(published[1] / "index.html")
    row = page.locator("table.ranking tr.external").first
    assert row.locator("td").first.inner_text() == "–"
    assert "not measured here" in row.inner_text()
    color = "(cell) => getComputedStyle(cell).color"
    grey, ink = (
        page.locator(f"table.ranking tr{kind} > td:nth-child(3)").first.evaluate(color)
        for kind in (".external", ":not(.external)[data-s]")
    )
    assert grey != ink
    robust = page.locator("table.ranking >> nth=-1 >> tr[data-e] > td:nth-child(4)").all_inner_texts()
    values = [float(text) for text in robust if text != "–"]
    assert values == sorted(values, reverse=True)
    assert robust[-1] == "–"
    page.locator(f"{TABLE} >> thead th:nth-child(1)").get_by_role("button").click()
    kinds = page.locator(f"{TABLE} >> tbody tr").evaluate_all("(all) => all.map((row) => row.className)")
    assert kinds == [""] * 12 + ["external"] * 7  # without a rank, last
    page.select_option("#filter-status", "not measured here")
    assert page.locator("tr[data-s]:not(.external):visible").count() == 0
    assert page.locator("table.ranking tr.external:visible").count() == 7
    page.locator("table.ranking tr.external a").first.click()
    target = page.evaluate("location.hash.slice(1)")
    assert page.locator(f"[id='{target}']").is_visible()
    assert page.locator("section.board:visible h2").all_inner_texts()[1:] == [
        "Not measured here: digits_target, L1 0.1",
        "Not measured here: digits_target, Linf 0.1",
    ]


def test_charts_come_to_life_without_eval(page: Any) -> None:
    page.locator("section.board .charts").first.scroll_into_view_if_needed()
    page.wait_for_selector(".chart-live svg")
    assert page.locator("section.board .chart").first.locator(".chart-picture").is_hidden()
    assert (
        page.evaluate("document.querySelector('meta[http-equiv]').content.includes('unsafe-eval')") is False
    )


def test_hostile_names_are_only_words(show: Any, summary: Any, published: Any) -> None:
    page = show(summary[1] / "index.html")
    places = [published[1] / "index.html", *(summary[1] / "models").glob("*.html"), summary[1] / "index.html"]
    for path in places:
        page.goto(path.resolve().as_uri())
        assert page.title() != "taken"
        assert page.locator("main img[src=x], main svg[onload], main script:not([type])").count() == 0
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), path
    shown = column(page, 2)
    for name in HOSTILE:
        assert any(" ".join(name.split()) == " ".join(text.split()) for text in shown), name


def test_the_page_says_the_same_without_a_script(show: Any, summary: Any) -> None:
    plain = show(summary[1] / "index.html", java_script_enabled=False)
    assert plain.locator("form.filters").is_hidden()
    assert plain.locator("th button").count() == 0
    assert len(column(plain, 2)) == len(summary[0].boards[-1].entries) == 12
    assert plain.locator(".chart-picture svg").first.is_visible()
    text = plain.inner_text("main")
    for words in ("theta", "<b>Square</b> found more", "not readable as JSON", "L2 0.5", "fog"):
        assert words in text, words
    assert plain.locator(".change.rose, .change.fell, .change.new, .change.gone").count() >= 3


@pytest.mark.parametrize("width", [390, 1280])
def test_only_tables_scroll_sideways(width: int, show: Any, summary: Any, published: Any) -> None:
    card = next((summary[1] / "models").glob("alpha-*.html"))
    for path in (summary[1] / "index.html", published[1] / "index.html", card):
        page = show(path, viewport={"width": width, "height": 844})
        assert page.evaluate("document.documentElement.scrollWidth") == width
        for region in page.locator(".scroll").all():
            assert region.get_attribute("tabindex") == "0"
            assert region.get_attribute("aria-label")


def test_links_lead_to_files(page: Any, summary: Any, published: Any) -> None:
    places = [summary[1] / "index.html", published[1] / "index.html"]
    for path in [*places, *(summary[1] / "models").glob("*.html")]:
        page.goto(path.resolve().as_uri())
        targets = page.evaluate("[...document.querySelectorAll('a')].map((a) => a.href)")
        assert targets
        files = {target for target in targets if "#" not in target} - {"https://example.org/paper"}
        for target in files:
            assert Path(target.removeprefix("file://")).exists(), target
        for target in {target.partition("#")[2] for target in targets if "#" in target}:
            assert page.locator(f"[id='{target}']").count() == 1


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing(scheme: str, show: Any, summary: Any, published: Any) -> None:
    from axe_playwright_python.sync_playwright import Axe

    cards = [next((summary[1] / "models").glob(f"{name}-*.html")) for name in ("alpha", "beta", "masked")]
    for path in (summary[1] / "index.html", published[1] / "index.html", *cards):
        page = show(path, color_scheme=scheme)
        page.evaluate("scrollTo(0, document.body.scrollHeight / 3)")
        page.wait_for_timeout(500)
        found = Axe().run(page).response
        assert found["passes"]
        bad = found["violations"]
        assert not bad, json.dumps(
            [(one["id"], one["nodes"][0]["html"], one["nodes"][0]["failureSummary"]) for one in bad]
        )


def test_on_paper_everything_is_there_in_black_on_white(
    page: Any, summary: Any, published: Any, tmp_path: Path
) -> None:
    page.emulate_media(media="print", color_scheme="dark")
    page.set_viewport_size({"width": 1030, "height": 700})
    assert page.evaluate("getComputedStyle(document.body).color") == "rgb(0, 0, 0)"
    assert page.locator("form.filters").is_hidden()
    for path in (published[1] / "index.html", summary[1] / "index.html"):
        page.goto(path.resolve().as_uri())
        assert page.evaluate("document.documentElement.scrollWidth") <= 1030
        assert page.evaluate(
            "[...document.querySelectorAll('.scroll')].every((e) => e.scrollWidth <= e.clientWidth + 1)"
        )
    print_pdf(summary[1] / "index.html", tmp_path / "board.pdf")
    content = (tmp_path / "board.pdf").read_bytes()
    assert content.startswith(b"%PDF")
    assert len(content) > 20_000


def test_a_served_page_shows_itself_anew(show: Any, vary: Any, tmp_path: Path) -> None:
    folder = tmp_path / "runs"
    vary(folder, "alpha", np.ones(50, bool))
    with BoardServer(folder, host="127.0.0.1", port=0, say=lambda line: None) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            page = show(server.url)
            page.wait_for_timeout(500)
            vary(folder, "beta", np.arange(50) < 20)
            page.wait_for_selector("text=beta", timeout=20_000)
            entry = {"name": "Invented", "dataset": "a", "eps": "0.1", "clean_acc": "90", "reported": "50"}
            (tmp_path / "Linf").mkdir()
            (tmp_path / "Linf/Doe2026.json").write_text(json.dumps(entry))
            import_entries([tmp_path / "Linf"], folder)
            page.wait_for_selector("text=Doe2026", timeout=20_000)
            page.get_by_role("link", name="beta").first.click()
            assert page.inner_text("h1") == "beta"
            page.get_by_role("link", name="record.json").click()
            assert page.evaluate("document.body.textContent").startswith("{")
            page.close()  # else it may ask once more while the server ends
        finally:
            server.stop()
            thread.join()


def test_a_thousand_models(show: Any, vary: Any, tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    hardness = draw.random(100)
    for place in range(1000):
        vary(
            tmp_path / "in",
            f"{place:04d}",
            hardness + draw.normal(0, 0.1, 100) < draw.random(),
            name="m" * 40 + str(place),
        )
    start = time.process_time()  # of the CPU: other work on the machine does not count
    board = build_leaderboard([tmp_path / "in"], tmp_path / "out").boards[0]
    assert time.process_time() - start < 10
    assert len(board.entries) == 1000
    assert (tmp_path / "out/index.html").stat().st_size < 5_000_000
    page = show(tmp_path / "out/index.html")
    region = page.locator(".scroll.tall").first
    region.evaluate("(element) => element.scrollTo(0, element.scrollHeight)")
    last = page.locator("table.ranking tbody tr").last
    assert last.locator("th").inner_text() == board.entries[-1].name
    assert page.evaluate("document.querySelector('.scroll.tall').scrollTop") > 1000
    top = region.bounding_box()["y"]
    assert page.locator("table.ranking thead th").first.bounding_box()["y"] == pytest.approx(
        top, abs=2
    )  # it stays
    page.locator("table.ranking th", has_text="clean").get_by_role("button").click()
    page.fill("#filter-text", "m999")
    assert page.locator("table.ranking tbody tr:visible").count() == 1
