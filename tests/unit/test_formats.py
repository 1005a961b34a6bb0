"""How words and figures get into pages and tables."""

import pytest

from temper.formats import (
    count,
    duration,
    escape_markdown,
    markdown_table,
    one_line,
    percent,
    points,
    short_count,
    spreadsheet_cell,
)


def test_figures() -> None:
    assert (percent(0.8424), percent(None), percent(None, "")) == ("84.2", "–", "")
    assert (points(0.031), points(-0.2), points(None)) == ("+3.1", "-20.0", "–")
    assert (short_count(11_173_962), short_count(999), count(2.5e9)) == ("11.2 M", "999", "2.5 billion")
    assert (duration(4.21), duration(42), duration(720), duration(11_100)) == (
        "4.21 s", "42 s", "12 min", "3 h 5 min",
    )  # fmt: skip


@pytest.mark.parametrize("turns", ["\u202e", "\u2066", "\u200f", "\u061c", "\x1b", "\x07", "\x9b"])
def test_words_do_not_turn_what_stands_beside_them(turns: str) -> None:
    assert one_line(f"a{turns}b\nc") == "ab c"
    assert escape_markdown(f"*a{turns}|b<c>") == "\\*a\\|b&lt;c&gt;"


@pytest.mark.parametrize(
    ("align", "rule"),
    [("l", "| --- | --- | --- |"), ("lr", "| --- | ---: | ---: |"), ("rlr", "| ---: | --- | ---: |")],
)
def test_the_last_side_of_a_table_serves_the_columns_that_follow(align: str, rule: str) -> None:
    assert markdown_table(["a", "b", "c"], [["1", "2", "3"]], align) == [
        "| a | b | c |",
        rule,
        "| 1 | 2 | 3 |",
    ]


@pytest.mark.parametrize(
    ("value", "cell"),
    [("-1", "-1"), ("+2.5", "+2.5"), ("-1+1", "'-1+1"), ("=1", "'=1"), ("@a", "'@a"), ("NORMAL", "NORMAL")],
)
def test_a_number_is_no_formula(value: str, cell: str) -> None:
    assert spreadsheet_cell(value) == cell
