"""The state of a sweep on disk: the points that were started, and the ledger of ended trials."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import Field

from temper.errors import RecordError
from temper.records import LedgerRow, SweepFolder, append_line, read_epochs, read_ledger, write_atomic
from temper.safe_load import parse_json
from temper.search import (
    BASELINE,
    Answer,
    GivenPoints,
    Known,
    OptunaPoints,
    Point,
    Points,
    SearchSpace,
    Trial,
    answer_of,
    baseline_trial,
    build_trial,
    build_trials,
    group_of,
)
from temper.spec import Spec, first_problem
from temper.storage import publish


@dataclass(frozen=True)
class Watch:
    """Callbacks that report progress, and the command that resumes."""

    on_stage: Callable[[str], None] = lambda _stage: None
    """A new stage begins."""
    on_epoch: Callable[[Mapping[str, Any]], None] = lambda _metrics: None
    """An epoch of the pretraining has ended."""
    on_result: Callable[[str, Mapping[str, Any]], None] = lambda _trial, _metrics: None
    """An epoch of a trial has ended."""
    on_trial: Callable[[LedgerRow, int], None] = lambda _row, _total: None
    """A trial has ended; the number of all trials."""
    resume_command: str | None = None
    """What users are told to resume with; ``None``: `temper sweep --resume`."""


class Begun(Spec):
    """A line of ``points.jsonl``."""

    trial: str = Field(pattern=r"^[0-9]{1,9}$")
    recipe_hash: str
    overrides: dict[str, Any]


class TrialStore:
    """Which trials there are: those of earlier sessions that have not ended first, then new ones.

    The same ``document`` and space in the same folder resume where the sweep was interrupted.

    Raises:
        RecordError: files of the folder that were changed by hand, or belong to another recipe.
        SearchSpaceError: points that are no recipes.
    """

    def __init__(self, folder: SweepFolder, space: SearchSpace, document: Mapping[str, Any], where: str):
        self.folder, self.space = folder, space
        self._document, self._where = document, where
        mend_last_line(folder)
        self.rows: dict[str, LedgerRow] = {row.trial: row for row in read_ledger(folder.ledger)}
        self._begun = read_begun(folder)
        self._trials = {begun.trial: self._again(begun) for begun in self._begun}
        baseline = baseline_trial(space, document, where)
        if baseline is not None:
            self._trials = {BASELINE: self._named(baseline), **self._trials}
        points = [begun.overrides for begun in self._begun]
        self._planned = None if is_adaptive(space) else build_trials(space, document, where)
        self._points: Points = (
            OptunaPoints(space, document, where, list(self._known()))
            if self._planned is None
            else GivenPoints([trial.overrides for trial in self._planned[len(points) :]])
        )
        self._waiting = [trial for trial in self._trials.values() if trial.trial not in self.rows]
        self._is_exhausted = False

    def _again(self, begun: Begun) -> Trial:
        number = int(begun.trial)
        trial = self._named(build_trial(self._document, begun.overrides, number, self._where))
        if trial.recipe.hash != begun.recipe_hash:
            raise RecordError(
                f"{self.folder.points}: trial {begun.trial} was started with another recipe; restore "
                f"{self.folder.recipe.name} and {self.folder.space.name}, or choose another --out"
            )
        return trial

    def _known(self) -> Iterator[Known]:
        for begun in self._begun:
            row = self.rows.get(begun.trial)
            yield begun.overrides, None if row is None else self._answer(row)

    def _answer(self, row: LedgerRow) -> Answer:
        return answer_of(row, self.space, self.history(row.trial))

    def _named(self, trial: Trial) -> Trial:
        """With the trial's name and tracking group, neither of which counts for the hash."""
        recipe = trial.recipe
        group = group_of(recipe, self.folder.path.resolve().name)
        update = {
            "name": f"{recipe.name[:90]}-{trial.trial}",
            "tracking": recipe.tracking.model_copy(update={"group": group}),
        }
        return Trial(trial.trial, trial.overrides, recipe.model_copy(update=update))

    @property
    def total(self) -> int:
        """All trials, ended, begun and to come."""
        to_come = self.space.samples if self._planned is None else len(self._planned)
        num = len(self._begun) if self._is_exhausted else max(to_come, len(self._begun))
        return num + (BASELINE in self._trials)

    @property
    def known_trials(self) -> list[Trial]:
        """Trials that are known in advance: all of a random or grid search."""
        planned = {trial.trial: self._named(trial) for trial in self._planned or []}
        return list((planned | self._trials).values())

    @property
    def is_finished(self) -> bool:
        """Whether each trial has its row."""
        return len(self.rows) >= self.total

    def next(self) -> Trial | None:
        """The next trial to run, written down; ``None`` when there is none left."""
        if self._waiting:
            return self._waiting.pop(0)
        point: Point | None = self._points.propose()
        if point is None:
            self._is_exhausted = True
            return None
        number = len(self._begun)
        trial = self._named(build_trial(self._document, point, number, self._where))
        begun = Begun(trial=trial.trial, recipe_hash=trial.recipe.hash, overrides=point)
        append_line(self.folder.points, begun.model_dump(mode="json"))
        publish(self.folder.points)  # before the trial leaves anything in the storage
        self._begun.append(begun)
        self._trials[trial.trial] = trial
        return trial

    def trial(self, name: str) -> Trial:
        """A trial that was begun."""
        return self._trials[name]

    def ended(self, row: LedgerRow) -> None:
        """Keep the row of a trial that has ended, and let the search learn from it."""
        if row.trial in self.rows:
            return
        append_line(self.folder.ledger, row.model_dump(mode="json"))
        self.rows[row.trial] = row
        if row.trial.isdigit():
            self._points.tell(int(row.trial), self._answer(row))

    def history(self, trial: str) -> list[tuple[int, float]]:
        """Epochs, from 1, with the sweep's metric after them, as far as the trial came."""
        return read_history(self.folder, trial, self.space.metric)


def is_adaptive(space: SearchSpace) -> bool:
    """Whether points depend on the answers to earlier ones."""
    return space.search in ("tpe", "nsga2")


def read_history(folder: SweepFolder, trial: str, metric: str) -> list[tuple[int, float]]:
    path = folder.trial(trial).metrics
    rows = read_epochs(path)
    return [(row["epoch"] + 1, float(row[metric])) for row in rows if row.get(metric) is not None]


def read_begun(folder: SweepFolder) -> list[Begun]:
    """The points that were begun.

    Raises:
        RecordError: a line is none.
    """
    if not folder.points.exists():
        return []
    lines = folder.points.read_bytes().removesuffix(b"\n").split(b"\n")
    found = []
    for number, line in enumerate(lines if lines != [b""] else [], start=1):
        try:
            found.append(Begun.model_validate(parse_json(line)))
        except ValueError as problem:  # pydantic's, too
            raise RecordError(
                f"{folder.points}, line {number}: not a point ({first_problem(problem)})"
            ) from None
    return found


def mend_last_line(folder: SweepFolder) -> None:
    """Drop a last line that a crash left incomplete, so that the next one does not join it."""
    for path in (folder.points, folder.ledger):
        if path.exists():
            text = path.read_bytes()
            whole = text[: text.rfind(b"\n") + 1]
            if whole != text:
                write_atomic(path, whole)
