"""The plot and the table of a cross-validation, from its record alone."""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from textwrap import shorten
from typing import Any

import numpy as np

from temper.formats import escape_markdown, percent
from temper.formats import markdown_table as table_lines
from temper.records import CrossvalRecord, FoldRun, Spread, TargetSummary, write_atomic

SERIES = {"clean_acc": ("clean", "#2166ac"), "robust_acc": ("robust", "#c2410c")}
"""Measure -> its name and colour."""
GREY = "#6b7280"
LINES_APART = 0.17
"""Heights of two texts of two lines that do not touch, as fractions of the axis."""
SEEDS_WIDTH = 0.5
"""How far apart the first and the last seed of a fold are drawn; folds are 1 apart."""


def draw_plot(record: CrossvalRecord, path: Path) -> None:
    """Clean and robust accuracy on every fold of every target, a point for each seed; PNG."""
    from matplotlib.figure import Figure

    width = min(16.0, 3.6 + 0.75 * record.folds)
    figure = Figure(figsize=(width, 0.8 + 3.1 * len(record.targets)), layout="constrained")
    axes = figure.subplots(len(record.targets), squeeze=False)[:, 0]
    for axis, target in zip(axes, record.targets, strict=True):
        _draw_target(axis, record, target)
    title = f"{record.name}, {record.threat.label}"
    figure.suptitle(title, x=0.01, ha="left", fontsize=11, fontweight="bold")
    _draw_legend(figure, any(target.num_blocked for target in record.targets))
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=150)
    write_atomic(path, buffer.getvalue())


def _draw_legend(figure: Any, has_blocked: bool) -> None:
    """The legend of the shapes; colours are labelled at the means."""
    from matplotlib.lines import Line2D

    shapes = [
        Line2D([], [], color=GREY, marker="o", linestyle="", markersize=5, label="one seed"),
        Line2D([], [], color=GREY, linewidth=1.6, label="fold's mean"),
        Line2D([], [], color=GREY, marker="D", linewidth=2.2, markersize=5, label="mean, 95 % interval"),
    ]
    if has_blocked:
        label = "blocked, not counted"
        shapes.append(Line2D([], [], color=GREY, marker="x", linestyle="", markersize=5, label=label))
    figure.legend(
        handles=shapes,
        loc="outside lower left",
        ncols=len(shapes) if len(shapes) < 4 else 2,
        frameon=False,
        fontsize=8,
        columnspacing=1.2,
    )


def _draw_target(axis: Any, record: CrossvalRecord, target: TargetSummary) -> None:
    runs = [run for run in record.runs if run.target == target.target]
    means = [spread.mean for name in SERIES if (spread := target.measures.get(name)) is not None]
    for index, (measure, (name, colour)) in enumerate(SERIES.items()):
        _draw_points(axis, runs, record.seeds, measure, colour)
        spread = target.measures.get(measure)
        if spread is not None:
            # Texts of two means that are close are moved apart.
            gap = max(0.0, LINES_APART - (means[0] - means[1])) / 2
            height = spread.mean + (gap if index == 0 else -gap)
            _draw_mean(axis, spread, record.folds + 0.2 * index, record.folds + 0.5, height, name, colour)
    _draw_blocked(axis, [run for run in runs if run.status == "blocked"], record.seeds)
    _draw_frame(axis, record.folds, {run.fold: run.site for run in runs if run.site is not None})
    axis.set_title(_subtitle(target, record), loc="left", fontsize=9, color="#374151")


def _draw_frame(axis: Any, folds: int, sites: Mapping[int, str]) -> None:
    from matplotlib.ticker import PercentFormatter

    prefix = "fold " if folds <= 10 else ""
    step = -(-folds // 20)
    names = [shorten(sites.get(fold, f"{prefix}{fold + 1}"), 12) for fold in range(0, folds, step)]
    axis.set_xticks(range(0, folds, step), names)
    if sites or not prefix:
        axis.set_xlabel("site" if sites else "fold", fontsize=9)
    axis.set_xlim(-0.5, folds + 0.5 + 0.17 * (3.6 + 0.75 * folds))
    axis.set_ylim(-0.02, 1.05)
    axis.set_yticks(np.linspace(0, 1, 6))
    axis.yaxis.set_major_formatter(PercentFormatter(xmax=1, decimals=0))
    axis.set_ylabel("accuracy", fontsize=9)
    axis.tick_params(labelsize=9, length=0)
    axis.grid(axis="y", color="#e5e7eb", linewidth=0.8)
    axis.set_axisbelow(True)
    axis.axvline(folds - 0.45, color="#9ca3af", linewidth=0.8)
    for side in ("top", "right", "left"):
        axis.spines[side].set_visible(False)


def _subtitle(target: TargetSummary, record: CrossvalRecord) -> str:
    seeds = f"{len(record.seeds)} seed{'s' if len(record.seeds) > 1 else ''}"
    folds = f"{record.folds} {'sites' if record.by_site else 'folds'}"
    parts = [f"{target.target}: {target.num_images} images in {folds}, {seeds}"]
    parts += [f"{target.num_blocked} blocked"] if target.num_blocked else []
    parts += [f"{target.num_failed} failed"] if target.num_failed else []
    return ", ".join(parts)


def _draw_points(axis: Any, runs: Sequence[FoldRun], seeds: Sequence[int], measure: str, colour: str) -> None:
    """A point for each seed, and a line at the mean of each fold."""
    ok = [run for run in runs if run.status == "ok"]
    places = [run.fold + _offset(run, seeds) for run in ok]
    values = [getattr(run, measure) for run in ok]
    axis.scatter(places, values, s=22, color=colour, alpha=0.7, linewidths=0)
    folds = sorted({run.fold for run in ok})
    means = [np.mean([getattr(run, measure) for run in ok if run.fold == fold]) for fold in folds]
    half = SEEDS_WIDTH / 2 + 0.1
    starts, ends = [fold - half for fold in folds], [fold + half for fold in folds]
    axis.hlines(means, starts, ends, color=colour, linewidth=1.6)


def _draw_mean(
    axis: Any, spread: Spread, place: float, text_place: float, text_height: float, name: str, colour: str
) -> None:
    """The mean and its interval, right of the folds and as a band behind them."""
    text = f"{name} {100 * spread.mean:.1f} %"
    if spread.interval is not None:
        low, high = spread.interval.low, spread.interval.high
        axis.axhspan(low, high, color=colour, alpha=0.08, linewidth=0)
        axis.vlines(place, low, high, color=colour, linewidth=2.2)
        text += f"\n{100 * low:.1f} to {100 * high:.1f}"
    axis.plot([place], [spread.mean], "D", markersize=6, color=colour)
    height = min(0.97, max(0.04, text_height))
    axis.text(text_place, height, text, va="center", fontsize=8.5, color=colour, fontweight="bold")


def _draw_blocked(axis: Any, runs: Sequence[FoldRun], seeds: Sequence[int]) -> None:
    """Runs that a gate blocked: drawn, but not counted."""
    for measure in SERIES:
        places = [run.fold + _offset(run, seeds) for run in runs]
        values = [getattr(run, measure) for run in runs]
        axis.scatter(places, values, marker="x", s=22, linewidths=1.2, color=GREY)


def _offset(run: FoldRun, seeds: Sequence[int]) -> float:
    return SEEDS_WIDTH * (seeds.index(run.seed) / (len(seeds) - 1) - 0.5) if len(seeds) > 1 else 0.0


# --- the table --------------------------------------------------------------------------------


def markdown_table(record: CrossvalRecord) -> str:
    """``crossval.md``: the summary of each target, then every run."""
    parts = [
        f"# {record.name}: cross-validation",
        f"{_kind(record)}, seeds {', '.join(map(str, record.seeds))}, threat model "
        f"{record.threat.label}, recipe `{record.recipe_hash}`. "
        + (
            "The official test images are in no fold. "
            if record.keep_test
            else "The images of all splits are in the folds. "
        )
        + "Intervals are at 95 %, with the correction for folds that share training images "
        "(Nadeau and Bengio 2003).",
        _summary_table(record),
        *([_over_targets_table(record)] if record.over_targets else []),
        "![Clean and robust accuracy on each fold](crossval.png)",
        _runs_table(record),
    ]
    return "\n\n".join(parts) + "\n"


def _kind(record: CrossvalRecord) -> str:
    return (
        f"{record.folds} sites, each left out once" if record.by_site else f"{record.folds} stratified folds"
    )


def _summary_table(record: CrossvalRecord) -> str:
    rows = [
        [
            target.target,
            name.replace("_", " ").removesuffix(" acc"),
            percent(spread.mean),
            percent(spread.interval.low) + " to " + percent(spread.interval.high) if spread.interval else "–",
            percent(spread.std_folds),
            percent(spread.std_seeds),
            f"{target.num_ok} of {target.num_ok + target.num_blocked + target.num_failed}",
        ]
        for target in record.targets
        for name, spread in target.measures.items()
    ]
    columns = ["target", "accuracy", "mean %", "interval %", "spread of folds", "spread of seeds", "runs"]
    return _table(columns, rows)


def _over_targets_table(record: CrossvalRecord) -> str:
    rows = [
        [name.replace("_", " ").removesuffix(" acc"), percent(over.mean), percent(over.std)]
        for name, over in record.over_targets.items()
    ]
    return _table([f"accuracy over {len(record.targets)} targets", "mean %", "spread of targets"], rows)


def _runs_table(record: CrossvalRecord) -> str:
    rows = [
        [
            run.target,
            run.site or str(run.fold + 1),
            str(run.seed),
            percent(run.clean_acc),
            percent(run.robust_acc),
            run.status if run.error is None else f"{run.status}: {run.error.splitlines()[-1]}",
        ]
        for run in record.runs
    ]
    return _table(
        ["target", "site" if record.by_site else "fold", "seed", "clean %", "robust %", "status"], rows
    )


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    cells = [[escape_markdown(cell) for cell in row] for row in rows]
    return "\n".join(table_lines(columns, cells, "l"))
