"""What several commands share: evaluating, and the tables at the end."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from temper import formats
from temper.cli.show import finish, percent, progress_bar, say, table_of

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table

    from temper.leaderboard import LeaderboardSummary
    from temper.leaderboard.boards import Board
    from temper.records import EvaluationRecord, Proportion
    from temper.spec import Threat
    from temper.training import TrainState

NAME_WIDTH = 24
"""Of the names on a board, beyond which they are folded before a column is left out."""


def evaluate_somewhere(
    run: Path, overrides: dict[str, Any], out: Path | None, verbose: bool
) -> "EvaluationRecord":
    from temper.api.runs import evaluate_run

    with show_attacks(str(run)) as on_progress:
        return evaluate_run(run, overrides, out, on_progress=on_progress, verbose=verbose)


@contextmanager
def show_attacks(what: str) -> Iterator[Callable[[str, int, int, float], None]]:
    """A bar with the attack that is at work, and the robust accuracy so far."""
    say(f"evaluating {what}")
    with progress_bar("attacks") as update:
        yield lambda member, done, total, robust: update(done, total, f"{member}, robust {percent(robust)}")


def finish_record(record: "EvaluationRecord", folder: Path, as_json: bool) -> None:
    gain, spread = record.promises.adaptability, record.promises.consistency
    rows = [
        ["clean accuracy", _with_interval(record.clean_acc)],
        *_beside_clean(record),
        [f"robust accuracy, {record.threat.label}", _with_interval(record.robust_acc)],
        *_further_rows(record),
        *_rows_of_tests(record),
        *_metric_rows(record),
        *_rejection_rows(record),
        *([["source accuracy", percent(record.source_acc.value)]] if record.source_acc else []),
        *([["gained over the frozen start", f"{100 * gain.gain:+.1f} points"]] if gain else []),
        *(
            [["robust, spread over parts of the test", f"± {percent(spread.robust_acc_std)}"]]
            if spread
            else []
        ),
        ["status", record.status],
    ]
    path = folder / "record.json"
    finish(
        {"record": str(path), **record.model_dump(mode="json")},
        table_of(record.name, ["measure", "value"], rows),
        as_json=as_json,
    )
    if record.suite.caution:
        say(f"{record.suite.name} is {record.suite.caution}")
    for gate in record.gates:
        if not gate.passed:
            say(f"blocked by the gate '{gate.name}': {gate.detail}")
    for advice in record.advice:
        words = f"advice: {advice.text}" + ("" if advice.option is None else f" {advice.option}")
        say(words, is_bad=advice.kind == "validation_above_test")
    say(f"record: {path}")


def advise_on_channels(threat: "Threat", shards: Path) -> None:
    """Say so where grey images are attacked in colour."""
    from temper.run.test_sets import advice_on_channels

    if (advice := advice_on_channels(threat, shards)) is not None:
        say(f"advice: {advice}")


def _beside_clean(record: "EvaluationRecord") -> list[list[str]]:
    """Accuracy on validation images, and what is reached without looking at any; not of earlier records."""
    rows = []
    if record.validation is not None:
        value = f"{percent(record.validation.acc.value)} of {record.validation.acc.total} images"
        rows.append(["validation accuracy", value])
    if record.baselines is not None:
        rows.append(
            [f"always answering '{record.baselines.majority_class}'", percent(record.baselines.majority_acc)]
        )
    return rows


def best_of(state: "TrainState") -> str:
    """Which model of a run is kept, such as ``best epoch 3``."""
    return "linear probe" if state.best_is_probe else f"best epoch {(state.best_epoch or 0) + 1}"


def probe_line(record: "EvaluationRecord", path: Path) -> str:
    """What the linear probe on the start reaches, in a line."""
    return (
        f"linear probe on the start: clean {percent(record.clean_acc.value)}, balanced "
        f"{percent(record.balanced_acc)}, robust {percent(record.robust_acc.value)}; record: {path}"
    )


def _further_rows(record: "EvaluationRecord") -> list[list[str]]:
    """What was measured beyond the recipe's threat model, where anything was."""
    from temper.spec import format_ratio

    rows = [[f"at eps {format_ratio(point.eps)}", percent(point.robust_acc.value)] for point in record.curve]
    rows += [[f"robust, {other.threat.label}", _with_interval(other.robust_acc)] for other in record.others]
    if record.union_acc is not None:
        rows.append(["robust within all of them", _with_interval(record.union_acc)])
    smallest = record.minimum_norm
    if smallest is not None and smallest.median is not None:
        rows.append([f"smallest perturbation, median ({smallest.norm})", format_ratio(smallest.median)])
    for corrupted in record.corruptions:
        rows.append([f"under {corrupted.group} corruptions", percent(corrupted.mean_acc)])
    return rows


def _rows_of_tests(record: "EvaluationRecord") -> list[list[str]]:
    """Of each further test set: accuracies, and how far they fall from the main one."""
    rows = []
    for one in record.tests:
        for kind, acc, drop in (
            ("clean", one.clean_acc, one.clean_drop),
            ("robust", one.robust_acc, one.robust_drop),
        ):
            points = f"drop {100 * drop.value:+.1f} ({100 * drop.low:+.1f} to {100 * drop.high:+.1f}) points"
            rows.append([f"{one.name}, {kind}", f"{_with_interval(acc)}, {points}"])
    return rows


def _rejection_rows(record: "EvaluationRecord") -> list[list[str]]:
    """What rejecting does, where that was measured."""
    measured = record.rejection
    if measured is None:
        return []
    accepted = f"{percent(measured.accepted)}, {percent(measured.accepted_acc)} of them right"
    return [
        ["accepted above the threshold", accepted],
        ["calibration error at the temperature", percent(measured.ece)],
        *(
            [f"AUROC, {one.kind}: {one.name}", ", ".join(f"{k} {v:.3f}" for k, v in one.auroc.items())]
            for one in measured.detections
        ),
    ]


def _metric_rows(record: "EvaluationRecord") -> list[list[str]]:
    """Clean / under attack; records of an older temper have balanced accuracy alone."""
    balanced = f"{percent(record.balanced_acc)} / {percent(record.robust_balanced_acc)}"
    rows = [["balanced accuracy, clean / robust", balanced]]
    if record.metrics is None:
        return rows
    clean, robust = record.metrics.clean, record.metrics.robust
    rows.append(["macro F1, clean / robust", f"{percent(clean.macro_f1)} / {percent(robust.macro_f1)}"])
    if clean.auroc is not None and robust.auroc is not None:
        name = f"AUROC of {record.clean_acc.total} images, clean / robust"
        rows.append([name, f"{clean.auroc:.3f} / {robust.auroc:.3f}"])
    return [*rows, ["calibration error, clean / robust", f"{percent(clean.ece)} / {percent(robust.ece)}"]]


def board_table(board: "LeaderboardSummary") -> "RenderableType":
    """A table for each board, best first, as wide as the terminal; accuracies in percent."""
    from rich.console import Console, Group

    return Group(*(_one_board(part, Console().width) for part in board.boards))


def _one_board(board: "Board", width: int) -> "Table":
    """Rank and robust accuracy always; of the rest what there is, as far as there is room for it."""
    entries = board.entries
    columns = {
        "model": [_board_name(one.name, one.baseline) for one in entries],
        "rank": [f"{'=' if one.is_tied else ''}{one.rank}" for one in entries],
        "robust %": [_in_percent(one.robust_acc, one.robust_low, one.robust_high) for one in entries],
        "clean %": [formats.percent(one.clean_acc) for one in entries],
    }
    further = {
        "source %": [formats.percent(one.source_acc) for one in entries],
        "alpha": ["–" if one.alpha is None else f"{one.alpha:.3g}" for one in entries],
        "schedule": [one.schedule for one in entries],
        "eps": [one.adversary.split()[-1] for one in entries],
    }
    left = width - sum(map(_width_of, columns, columns.values())) - 1
    left += max(0, _width_of("model", columns["model"]) - NAME_WIDTH)
    for name, cells in further.items():
        needed = _width_of(name, cells)
        if needed <= left and set(cells) != {"–"}:
            columns[name], left = cells, left - needed
    title = f"{board.data_name}, {board.threat.label}, suite {board.suite}, {board.num_images} images"
    return table_of(title, list(columns), list(zip(*columns.values(), strict=True)))


def _width_of(column: str, cells: list[str]) -> int:
    """With the line and the spaces beside it."""
    return max(map(len, (column, *cells))) + 3


def _in_percent(value: float, low: float, high: float) -> str:
    return f"{formats.percent(value)} ({formats.percent(low)}–{formats.percent(high)})"


def _board_name(name: str, baseline: str | None) -> str:
    """What kind of baseline it is stands behind a name that does not say so, for there is little room."""
    says_so = baseline is None or name.endswith(baseline.split()[-1])
    return name if says_so else f"{name} ({baseline})"


def _with_interval(value: "Proportion") -> str:
    return f"{percent(value.value)} ({percent(value.low)} to {percent(value.high)})"
