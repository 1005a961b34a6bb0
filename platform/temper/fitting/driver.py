"""A fit from class folders to the page, by the verbs that there are: shards, sweep, leaderboard."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from temper.cluster.sweep import Watch, resume, sweep
from temper.data import ShardSet
from temper.data.shards import Progress
from temper.errors import DataError, TrainingError
from temper.explain import build_report
from temper.fitting.choose import Material, choose
from temper.fitting.documents import fit_space, planned_document
from temper.fitting.look import Look, check_reading, look_at, make_shards
from temper.fitting.outcome import Outcome, read_outcome
from temper.fitting.plan import FitPlan
from temper.fitting.request import FitFolder, FitRequest
from temper.fitting.starts import Start, find_starts
from temper.leaderboard import LeaderboardSummary, build_leaderboard
from temper.records import SweepRecord, read_ledger, write_atomic
from temper.safe_load import read_json
from temper.spec import read_yaml


@dataclass(frozen=True)
class FitWatch:
    """Callbacks that report progress."""

    sweep: Watch = field(default_factory=Watch)
    """Its ``on_stage`` hears of the fit's own stages too."""
    on_images: Progress = lambda _done, _total: None
    """Images are written into shards."""
    on_plan: Callable[[Look, FitPlan], None] = lambda _look, _plan: None
    """What is going to be trained; from here on it takes minutes."""

    def resumed_by(self, command: str) -> "FitWatch":
        """The same callbacks; a halted sweep names ``command``, since its own leaves out the fit's pages."""
        return replace(self, sweep=replace(self.sweep, resume_command=command))


@dataclass(frozen=True)
class FitResult:
    """What a fit came to."""

    path: Path
    request: FitRequest
    look: Look
    plan: FitPlan
    sweep: SweepRecord
    leaderboard: LeaderboardSummary
    outcome: Outcome
    page: Path
    report: Path
    """What the search found, as a page."""


def run_fit(
    request: FitRequest, out: Path, *, watch: FitWatch | None = None, verbose: bool = False
) -> FitResult:
    """Everything from images to the page, in ``out``; what is done there already is not done again.

    Raises:
        TemperError: images, network or time that cannot be used, all before anything is trained.
        Interrupted: by Ctrl-C; the same call resumes.
    """
    started = time.monotonic()
    folder = FitFolder(out)
    watch = (watch or FitWatch()).resumed_by(folder.resume_command)
    for path in (request.images, request.source):
        if path is not None and not Path(path).is_dir():
            what = "no folder; `temper shards` reads archives" if Path(path).exists() else "no such folder"
            raise DataError(f"{path}: {what}")
    check_reading(Path(request.images), request.reading)
    find_starts(request, 0)  # so that a wrong name is told before images are read
    folder.claim(request)
    material = _material(folder, request, watch)
    plan = _plan(folder, material, started, watch, verbose)
    watch.on_plan(material.look, plan)
    record = _sweep(folder, material, plan, watch, verbose)
    board = build_leaderboard(folder.sweep.boarded, folder.sweep.leaderboard)
    report = build_report(folder.sweep.path).page
    outcome = read_outcome(folder, request, material.look, plan, record)
    page = folder.sweep.leaderboard / "index.html"
    return FitResult(out, request, material.look, plan, record, board, outcome, page, report)


def resume_fit(out: Path, *, watch: FitWatch | None = None, verbose: bool = False) -> FitResult:
    """Resume the fit in ``out``; nothing but the folder is needed.

    Raises:
        CheckpointError: no fit here.
        TemperError: as ``run_fit``.
    """
    return run_fit(FitFolder(out).read_request(), out, watch=watch, verbose=verbose)


def _material(folder: FitFolder, request: FitRequest, watch: FitWatch) -> Material:
    watch.sweep.on_stage(f"reading the images in {request.images}")
    make = partial(make_shards, size=request.size, seed=request.seed, on_progress=watch.on_images)
    shards = make(Path(request.images), folder.shards, reading=request.reading)
    source = None
    if request.source is not None:
        source = make(Path(request.source), folder.source, reading=request.reading.of_source)
    opened = ShardSet.open(shards)
    if opened.manifest.depth is not None:
        watch.sweep.on_stage(f"images of more than 8 bits: {opened.manifest.depth}")
    look = look_at(opened)
    if folder.sweep.recipe.exists():  # begun, maybe by a temper that attacked all images in colour
        begun = read_yaml(folder.sweep.recipe)["threat"].get("channels", "colour")
        look = look.model_copy(update={"channels": begun})
    return Material(request, look, shards, source)


def _plan(folder: FitFolder, material: Material, started: float, watch: FitWatch, verbose: bool) -> FitPlan:
    """What was chosen before, or is chosen now."""
    if folder.plan.exists():
        return FitPlan.model_validate(read_json(folder.plan))
    plan = choose(material, started, watch.sweep.on_stage, verbose=verbose)
    write_atomic(folder.plan, plan.model_dump_json(indent=2) + "\n")
    return plan


def _sweep(
    folder: FitFolder, material: Material, plan: FitPlan, watch: FitWatch, verbose: bool
) -> SweepRecord:
    path = folder.sweep.path
    try:
        if folder.sweep.points.exists() or folder.sweep.summary.exists():
            return resume(path, watch=watch.sweep, verbose=verbose)
        return _first_sweep(folder, material, plan, watch, verbose)
    except TrainingError:
        if any(row.status != "finished" for row in read_ledger(folder.sweep.ledger)):
            raise
    # A page that comes late is worth more than none in time.
    watch.sweep.on_stage(
        f"the machine became slower, and {material.request.minutes:g} minutes were too short for a hardened "
        f"model: training on until there is one; after Ctrl-C `{folder.resume_command}` resumes"
    )
    return resume(path, {"max_minutes": None}, watch=watch.sweep, verbose=verbose)


def _first_sweep(
    folder: FitFolder, material: Material, plan: FitPlan, watch: FitWatch, verbose: bool
) -> SweepRecord:
    start = plan.start
    chosen = Start(start.backbone, start.weights, (start.image_size,))
    document = material.document(chosen, start.image_size, start.fit)
    has_source = material.source is not None
    space = fit_space(material.request, material.look, plan, has_source=has_source)
    path = folder.sweep.path
    return sweep(planned_document(document, plan), space, path, watch=watch.sweep, verbose=verbose)
