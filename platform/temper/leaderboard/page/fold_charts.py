"""Charts of what depends on the fold."""

from typing import Any

from markupsafe import Markup

from temper.charts import BLUE, RED, Chart, embed_chart
from temper.leaderboard.boards import Board
from temper.leaderboard.page.charts import axis, draw, in_percent, label
from temper.leaderboard.page.environment import short
from temper.leaderboard.page.frame import Frame
from temper.leaderboard.summary import CrossvalSummary

MAX_ROWS = 12


def consistency(board: Board) -> Markup | None:
    """Mean and spread over folds of the test images."""
    rows = [
        (
            label(entry, 20),
            folds.clean_acc_mean,
            folds.clean_acc_std,
            folds.robust_acc_mean,
            folds.robust_acc_std,
        )
        for entry in board.entries
        if (folds := entry.promises.consistency)
    ][:MAX_ROWS]
    if not rows:
        return None
    frame = Frame(x_low=0.0, x_high=1.0, height=60 + 26 * len(rows), left=200)
    picture = draw("folds", rows=rows, frame=frame)
    values = [
        {"model": name, "kind": kind, "mean": in_percent(mean), "low": in_percent(mean - std)}
        | {"high": in_percent(mean + std)}
        for name, clean, clean_std, robust, robust_std in rows
        for kind, mean, std in (("clean", clean, clean_std), ("robust", robust, robust_std))
    ]
    return _dots(
        values,
        len(rows),
        "Consistency: mean ± standard deviation over stratified parts of the test images",
        picture,
    )


def crossval_folds(crossval: CrossvalSummary) -> Markup | None:
    """Robust accuracy of each fold of each target."""
    rows = [
        (short(target), [value for value in values if value is not None])
        for target, values in crossval.robust.items()
    ]
    rows = [(target, values) for target, values in rows if values][:MAX_ROWS]
    if not rows:
        return None
    frame = Frame(x_low=0.0, x_high=1.0, height=60 + 26 * len(rows), left=200)
    picture = draw("crossval", rows=rows, frame=frame)
    spec = {
        "data": {"values": [{"target": t, "robust": in_percent(v)} for t, values in rows for v in values]},
        "mark": {"type": "tick", "thickness": 2, "color": BLUE},
        "encoding": {"x": axis("robust", "robust accuracy, %", 0.0), "y": _names("target")},
        "height": 26 * len(rows),
    }
    words = "; ".join(f"{t}: {', '.join(f'{100 * v:.1f}' for v in values)}" for t, values in rows)
    chart = Chart(spec, "Robust accuracy of each fold", f"In percent. {words}")
    return Markup(embed_chart(chart, picture=picture))  # noqa: S704  # every word is escaped in there


def _dots(values: list[dict[str, Any]], num_rows: int, title: str, picture: str) -> Markup:
    y, offset = _names("model"), {"field": "kind", "type": "nominal"}
    color = {
        "field": "kind",
        "type": "nominal",
        "title": None,
        "scale": {"domain": ["clean", "robust"], "range": [BLUE, RED]},
    }
    spec = {
        "data": {"values": values},
        "height": 26 * num_rows,
        "layer": [
            {
                "mark": {"type": "rule"},
                "encoding": {"x": axis("low", "accuracy, %", 0.0), "x2": {"field": "high"}, "y": y}
                | {"yOffset": offset, "color": color},
            },
            {
                "mark": {"type": "point", "filled": True, "size": 60},
                "encoding": {"x": axis("mean", "accuracy, %", 0.0), "y": y, "yOffset": offset, "color": color}
                | {"tooltip": [{"field": name} for name in ("model", "kind", "mean", "low", "high")]},
            },
        ],
    }
    chart = Chart(spec, title, f"Clean and robust accuracy of {num_rows} models; the table has the numbers.")
    return Markup(embed_chart(chart, picture=picture))  # noqa: S704  # every word is escaped in there


def _names(field: str) -> dict[str, Any]:
    return {"field": field, "type": "nominal", "sort": None, "title": None, "axis": {"labelLimit": 180}}
