"""The best trials' recipes, written out ready to run."""

import re
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from temper.errors import TemperError
from temper.explain.gather import CLEAN, ROBUST, SOURCE, Gathered, run_of
from temper.explain.trials import Trial
from temper.records import hash_of_recipe, write_atomic
from temper.spec import Spec, apply_overrides, dump_yaml, read_yaml

NUM_BEST: Final = 3
"""Trials that are written out where nothing is known of finalists or of a front."""


class BestRecipe(Spec):
    """One recipe that is worth running again."""

    rank: int
    trial: str
    file: str
    """Relative to the report's folder."""
    command: str
    why: str


def choose_best(gathered: Gathered, trials: Sequence[Trial]) -> list[Trial]:
    """Finalists, then the rest of the front, each by the metric that was searched by; never the baseline."""
    finalists = gathered.record.finalists if gathered.record else []
    finished = by_metric([trial for trial in trials if trial.status == "finished"], gathered.metric)
    known = {trial.trial: trial for trial in finished if not trial.is_baseline}
    chosen = [known[name] for name in finalists if name in known]
    chosen += [trial for trial in known.values() if trial.is_on_front and trial not in chosen]
    return chosen or list(known.values())[:NUM_BEST]


def by_metric(trials: Sequence[Trial], metric: str) -> list[Trial]:
    """Best first; those without the metric last."""
    return sorted(trials, key=lambda trial: (-trial.values.get(metric, -1.0), trial.trial))


def write_best(
    gathered: Gathered, best: Sequence[Trial], report: Path, problems: list[str]
) -> list[BestRecipe]:
    """Write ``best/1-<trial>.yaml`` and so on under ``report``; what earlier reports left there goes."""
    written = []
    for rank, trial in enumerate(best, start=1):
        recipe = _recipe(gathered, trial, problems)
        if recipe is None:
            continue
        file = f"best/{rank}-{re.sub(r'[^A-Za-z0-9_-]+', '_', trial.trial)[:80]}.yaml"
        path = report / file
        one = BestRecipe(
            rank=rank,
            trial=trial.trial,
            file=file,
            command=f"temper train {_quoted(path.as_posix())}",
            why=_why(trial),
        )
        write_atomic(path, _header(one, trial) + recipe)
        written.append(one)
    keep = {Path(one.file).name for one in written}
    for path in sorted((report / "best").glob("*.yaml")):
        if path.name not in keep and re.match(r"\d+-", path.name):
            path.unlink()
    return written


def _recipe(gathered: Gathered, trial: Trial, problems: list[str]) -> str | None:
    """The trial's resolved recipe; put together from the sweep's where the trial's folder is gone."""
    run = run_of(gathered.folder, trial.trial)
    try:
        if run is not None and run.recipe.exists():
            recipe = read_yaml(run.recipe)
            if hash_of_recipe(recipe) != trial.recipe_hash:
                problems.append(
                    f"trial {trial.trial}: its recipe.yaml does not have the hash that the ledger names"
                )
            return dump_yaml(recipe)
        if gathered.recipe:
            overrides = next(row.overrides for row in gathered.rows if row.trial == trial.trial)
            return dump_yaml(apply_overrides(gathered.recipe, overrides))
        problems.append(f"trial {trial.trial}: its recipe is missing, so it was not written out")
    except TemperError as problem:
        problems.append(f"trial {trial.trial}: its recipe cannot be read ({str(problem).splitlines()[0]})")
    return None


def _header(best: BestRecipe, trial: Trial) -> str:
    """Comment lines: what the numbers were, and how to run it; no name ends its line."""
    names = ((CLEAN, "clean"), (ROBUST, "robust"), (SOURCE, "source"))
    values = [f"{name} {100 * trial.values[key]:.1f} %" for key, name in names if key in trial.values]
    lines = [f"{best.rank}. Trial {trial.trial}: {best.why}."]
    if values:
        lines.append(f"Validation: {', '.join(values)}.")
    if trial.suite is not None and not trial.suite.is_blocked:
        suite = trial.suite
        lines.append(
            f"Suite {suite.suite}, test images: clean {100 * suite.clean_acc.value:.1f} %, "
            f"robust {100 * suite.robust_acc.value:.1f} % "
            f"({100 * suite.robust_acc.low:.1f} to {100 * suite.robust_acc.high:.1f})."
        )
    told = "".join(f"# {_one_line(line)}\n" for line in lines)
    return f"{told}#   {best.command}\n"


def _why(trial: Trial) -> str:
    reasons = [
        *(["finalist"] if trial.is_finalist else []),
        *(["on the Pareto front"] if trial.is_on_front else []),
    ]
    # Of population-based training: it did not keep its own settings, so its recipe alone does not repeat it.
    changed = f"; {trial.note}" if trial.note else ""
    return (", ".join(reasons) or "among the best by the metric") + changed


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _quoted(path: str) -> str:
    return shlex.quote(_one_line(path))
