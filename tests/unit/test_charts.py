"""Charts: what they say is escaped, and they keep the page's colours."""

import json
import re
from pathlib import Path

import pytest

from temper.charts import BLUE, Chart, chart_script, embed_chart

EVIL = "</script><img src=x onerror=alert(1)>"


def chart(name: str = EVIL) -> Chart:
    spec = {
        "data": {"values": [{"clean": 0.1 * i, "robust": 0.05 * i, "name": name} for i in range(5)]},
        "mark": {"type": "point", "color": BLUE},
        "encoding": {
            "x": {"field": "clean", "type": "quantitative"},
            "y": {"field": "robust", "type": "quantitative"},
            "text": {"field": "name"},
        },
    }
    return Chart(spec, title=f"Clean {name}", description=f'Points "{name}"')


def test_no_word_of_a_chart_becomes_markup() -> None:
    page = embed_chart(chart())
    assert "<img" not in page
    assert page.count("</script") == 1


def test_the_specification_comes_back_as_it_was() -> None:
    page = embed_chart(chart())
    text = re.search(r'class="chart-spec">(.*?)</script>', page, re.DOTALL)
    assert text is not None
    spec = json.loads(text[1])
    assert spec["data"]["values"][2]["name"] == EVIL
    assert spec["width"] == "container"


def test_a_picture_alone_needs_no_script() -> None:
    page = embed_chart(chart("a"), is_interactive=False)
    assert "<script" not in page
    assert page.count("<path") >= 5
    assert 'fill="currentColor"' in page


def test_the_script_is_kept_for_the_next_page(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TEMPER_CACHE", str(tmp_path))
    first = chart_script()
    assert "vegaEmbed" in first
    assert "</script" not in first
    assert len(list(tmp_path.iterdir())) == 1
    assert chart_script() == first


def test_an_altered_script_is_not_embedded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TEMPER_CACHE", str(tmp_path))
    first = chart_script()
    (kept,) = tmp_path.iterdir()
    kept.write_text(kept.read_text() + "\nalert(1)")
    assert chart_script() == first
    assert "alert(1)" not in kept.read_text()


@pytest.mark.parametrize("home", ["a file", "a file/below"])
def test_a_home_that_cannot_be_written_costs_only_time(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, home: str
) -> None:
    (tmp_path / "a file").touch()
    monkeypatch.setenv("TEMPER_CACHE", str(tmp_path / home))
    assert "vegaEmbed" in chart_script()
