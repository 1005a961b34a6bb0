"""``models/<slug>.html``: what is known of one model, and how far it can be trusted."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

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
from temper.verification import verdict_beside

MAX_INLINED = 100
"""Cards of more models than that link to their pictures, so that a thousand stay small."""
LINKED = ("record.json", "recipe.yaml", "outcomes.parquet", "verdict.json", "entry.json")
MAX_CONFUSED = 20
"""Classes of which the whole confusion matrix is shown; of more, so many pairs."""
ROC = Frame(x_low=0.0, x_high=1.0, height=320)


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
                    **_answers_of(record, Path(entry.path), out, is_inlined=len(by_slug) <= MAX_INLINED),
                    curve=_curve(board, entry),
                    figure=_picture(
                        Path(entry.path), "figure.png", out, is_inlined=len(by_slug) <= MAX_INLINED
                    ),
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
            entry.status == "ok" and not _is_verified(Path(entry.path)),
            lambda: "The record has not been verified here with its model and its images.",
        ),
        (bool(record.per_class) and min(entry.per_class.values()) == 0, lambda: _fallen(entry)),
        (
            record.source is not None and record.source_acc is None,
            lambda: "The accuracy left on the source task is unknown.",
        ),
    )
    return (say() for applies, say in rules if applies)


def _is_verified(record: Path) -> bool:
    verdict, doubt = verdict_beside(record)
    return verdict is not None and doubt is None and verdict.passed and verdict.has_attacked


def _fallen(entry: Entry) -> str:
    names = [name for name, value in entry.per_class.items() if value == 0]
    more = " and others" if len(names) > 5 else ""
    return f"Under attack, no image of {', '.join(names[:5])}{more} is classified correctly."


def _answers_of(record: EvaluationRecord, path: Path, out: Path, *, is_inlined: bool) -> dict[str, Any]:
    """What the template needs to show clean answers, and the verdict beside the record file ``path``."""
    verdict, doubt = verdict_beside(path)
    drop = next((one for one in record.advice if one.kind == "validation_above_test"), None)
    classes = list(record.per_class)
    answers = [*classes, *([""] if any("" in row for row in (record.confusion or {}).values()) else [])]
    return {
        "verdict": verdict,
        "doubt": doubt,
        "drop": drop,
        "answers": answers if len(classes) <= MAX_CONFUSED else [],
        "confused": _most_confused(record) if len(classes) > MAX_CONFUSED else [],
        "totals": {name: sum(row.values()) for name, row in (record.confusion or {}).items()},
        "roc": Markup(draw("roc", binary=record.binary, frame=ROC)) if record.binary else None,  # noqa: S704
        "mistakes_picture": _picture(path, "mistakes.png", out, is_inlined=is_inlined),
    }


def _most_confused(record: EvaluationRecord) -> list[tuple[str, str, int]]:
    """Of many classes, the pairs of true class and wrong answer that occur most."""
    pairs = [
        (label, answer, count)
        for label, row in (record.confusion or {}).items()
        for answer, count in row.items()
        if label != answer
    ]
    return sorted(pairs, key=lambda pair: (-pair[2], pair[:2]))[:MAX_CONFUSED]


def _curve(board: Board, entry: Entry) -> Markup | None:
    if len(entry.curve) < 2:
        return None
    frame = Frame(x_low=0.0, x_high=entry.curve[-1].eps or 1.0, height=280)
    title, scale = eps_axis(board.threat.norm)
    drawn = draw("curve_of", curve=entry.curve, frame=frame, own=board.threat.eps, title=title, scale=scale)
    return Markup(drawn)  # noqa: S704  # a template of ours


def _picture(record: Path, name: str, out: Path, *, is_inlined: bool) -> str | None:
    inlined = figure_url(record, name) if is_inlined else None
    return inlined or relative_link(record.with_name(name), out)
