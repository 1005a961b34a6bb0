"""``models/<slug>.html``: what is known of one model, and how far it can be trusted."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from markupsafe import Markup

from temper.leaderboard.boards import Board
from temper.leaderboard.collect import FoundRecord
from temper.leaderboard.describe import describe_command, describe_method, dotted
from temper.leaderboard.entries import Entry
from temper.leaderboard.links import relative_link
from temper.leaderboard.page.charts import draw, eps_axis
from temper.leaderboard.page.environment import asset, content_policy, environment
from temper.leaderboard.page.frame import Frame
from temper.leaderboard.page.index import figure_url
from temper.records import EvaluationRecord, worst_slice

MAX_INLINED = 100
"""Cards of more models than that link to their pictures, so that a thousand stay small."""
LINKED = ("record.json", "recipe.yaml", "outcomes.parquet", "entry.json")


def render_cards(
    boards: Sequence[Board], records: Sequence[FoundRecord], out: Path, *, is_live: bool = False
) -> Iterator[tuple[str, str]]:
    """(file name, page) of every model of every board, for the folder ``out``."""
    by_slug = {found.slug: found.record for found in records}
    scripts = [asset("live.js")] if is_live else []
    template = environment().get_template("card.html.j2")
    for board in boards:
        for entry in (*board.entries, *board.blocked, *board.unverified):
            record = by_slug[entry.slug]
            yield (
                f"{entry.slug}.html",
                template.render(
                    board=board,
                    entry=entry,
                    record=record,
                    worst=worst_slice(record.slices),
                    method=describe_method(record),
                    commands=describe_command(record),
                    recipe="\n".join(dotted(record.recipe)),
                    limits=limits_of(board, entry, record),
                    curve=_curve(board, entry),
                    figure=_figure(Path(entry.path), out, is_inlined=len(by_slug) <= MAX_INLINED),
                    links=[
                        (name, link)
                        for name in LINKED
                        if (link := relative_link(Path(entry.path).with_name(name), out))
                    ],
                    policy=content_policy(scripts, is_live=is_live),
                    scripts=[Markup(script) for script in scripts],  # noqa: S704  # files of ours
                ),
            )


def limits_of(board: Board, entry: Entry, record: EvaluationRecord) -> list[str]:
    """What the numbers do not say."""
    points = 100 * max(entry.robust_high - entry.robust_acc, entry.robust_acc - entry.robust_low)
    return [
        f"Robust accuracy is an upper bound: attacks stronger than the suite {board.suite} may find more. "
        f"It holds for {board.threat.label} alone and says nothing about other changes.",
        f"With {board.num_images} test images, the true value may be {points:.1f} points away, "
        "and images from another source may do worse.",
        *_conditional_limits(entry, record),
    ]


def _conditional_limits(entry: Entry, record: EvaluationRecord) -> Iterator[str]:
    rules: tuple[tuple[bool, Callable[[], str]], ...] = (
        (not record.corruptions, lambda: "Accuracy under corruptions was not measured."),
        (not record.others, lambda: "No other threat model was measured."),
        (
            entry.status == "no outcomes",
            lambda: "Per-image outcomes are missing, so this model was ranked by its totals alone.",
        ),
        (
            entry.status == "ok",
            lambda: "The record has not been verified here with its model and its images.",
        ),
        (bool(record.per_class) and min(entry.per_class.values()) == 0, lambda: _fallen(entry)),
        (
            record.source is not None and record.source_acc is None,
            lambda: "The accuracy left on the source task is unknown.",
        ),
    )
    return (say() for applies, say in rules if applies)


def _fallen(entry: Entry) -> str:
    names = [name for name, value in entry.per_class.items() if value == 0]
    more = " and others" if len(names) > 5 else ""
    return f"Under attack, no image of {', '.join(names[:5])}{more} is classified correctly."


def _curve(board: Board, entry: Entry) -> Markup | None:
    if len(entry.curve) < 2:
        return None
    frame = Frame(x_low=0.0, x_high=entry.curve[-1].eps or 1.0, height=280)
    title, scale = eps_axis(board.threat.norm)
    drawn = draw("curve_of", curve=entry.curve, frame=frame, own=board.threat.eps, title=title, scale=scale)
    return Markup(drawn)  # noqa: S704  # a template of ours


def _figure(record: Path, out: Path, *, is_inlined: bool) -> str | None:
    inlined = figure_url(record) if is_inlined else None
    return inlined or relative_link(record.with_name("figure.png"), out)
