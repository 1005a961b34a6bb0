"""What docs/results.md shows of one domain's sweep: its tables and pictures, from the records."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pictures import draw, photograph
from temper.charts import BLUE, GREEN, ORANGE, Chart
from temper.explain import build_report
from temper.explain.front_charts import front_charts
from temper.leaderboard.describe import describe_schedule
from temper.records import EvaluationRecord, SweepFolder, read_columns, read_record
from temper.spec import format_ratio
from temper.statistics import sign_flip_test

FACTORS = ("alpha", "schedule", "strength")
LEGEND = (
    "A blue line joins two models that differ in one factor alone, the orange one their means; the green one "
    "is the baseline. "
    "The same in points, the mean over these pairs, with the p-value of a sign-flip test on the robust "
    "answers, image by image: it knows chance among images, not among seeds."
)


@dataclass(frozen=True)
class Model:
    """An evaluated trial with the level of each factor."""

    trial: str
    record: EvaluationRecord
    robust: np.ndarray
    """(N,) bool over the test images."""
    levels: dict[str, Any]

    @property
    def is_baseline(self) -> bool:
        return self.levels["strength"] is None

    @property
    def measures(self) -> dict[str, float | None]:
        """Fractions 0..1."""
        record = self.record
        return {
            "clean": record.clean_acc.value,
            "balanced": record.balanced_acc,
            "robust": record.robust_acc.value,
            "robust, balanced": record.robust_balanced_acc,
            "corrupted": record.corruptions[0].mean_acc if record.corruptions else None,
            "source": record.source_acc.value if record.source_acc else None,
        }


def load_models(folder: SweepFolder) -> list[Model]:
    """Every evaluated trial; the baseline last."""
    models = []
    for path in sorted(folder.trials.glob("*/record.json")):
        record = read_record(path)
        adversary = record.recipe["objective"]["adversary"]
        levels = {
            "alpha": record.recipe["objective"]["alpha"],
            "schedule": describe_schedule(record.recipe["schedule"]),
            "strength": adversary and format_ratio(adversary["eps"]),
        }
        robust = read_columns(path.with_name("outcomes.parquet"), ["robust"])["robust"]
        models.append(Model(path.parent.name, record, robust, levels))
    return models


def pairs_of(models: list[Model], factor: str) -> list[tuple[Model, Model]]:
    """Models that differ in this factor alone, the lower level first."""
    hardened = [model for model in models if not model.is_baseline]
    low, *_ = [model.levels[factor] for model in hardened]
    others = [name for name in FACTORS if name != factor]
    return [
        (a, b)
        for a in hardened
        for b in hardened
        if a.levels[factor] == low != b.levels[factor]
        and all(a.levels[name] == b.levels[name] for name in others)
    ]


def measured(models: list[Model]) -> list[str]:
    """Names of the measures that any model has."""
    return [name for name in models[0].measures if any(one.measures[name] is not None for one in models)]


def effects_table(models: list[Model]) -> list[str]:
    """What each factor did on average over the pairs, in points, and whether it could be luck."""
    names = measured(models)
    rows = [["factor", "from", "to", "pairs", *names, "p"]]
    for factor in FACTORS:
        pairs = pairs_of(models, factor)
        if not pairs:
            continue
        shifts = []
        for name in names:
            found = [(a.measures[name], b.measures[name]) for a, b in pairs]
            known = [100 * (b - a) for a, b in found if a is not None and b is not None]
            shifts.append(f"{np.mean(known):+.1f}" if known else "")
        differences = np.sum([b.robust.astype(int) - a.robust.astype(int) for a, b in pairs], axis=0)
        low, high = (str(model.levels[factor]) for model in pairs[0])
        rows.append([factor, low, high, str(len(pairs)), *shifts, f"{sign_flip_test(differences).mid:.2g}"])
    return table(rows, num_text=3)


def trials_table(models: list[Model]) -> list[str]:
    """A row for each model, by robust accuracy."""
    names = measured(models)
    rows = [["trial", *FACTORS, *names, "95 % of robust", "training, s"]]
    for model in sorted(models, key=lambda one: -one.record.robust_acc.value):
        robust = model.record.robust_acc
        blocked = "" if model.record.status == "ok" else f" ({model.record.status})"
        rows.append(
            [
                f"{model.trial}{blocked}",
                *(str(model.levels[name] if model.levels[name] is not None else "none") for name in FACTORS),
                *("" if (value := model.measures[name]) is None else f"{100 * value:.1f}" for name in names),
                f"{100 * robust.low:.1f} to {100 * robust.high:.1f}",
                f"{model.record.cost.train_s:.0f}",
            ]
        )
    return table(rows, num_text=4)


def table(rows: list[list[str]], num_text: int) -> list[str]:
    """Lines of Markdown, the first row as head."""
    rule = ["---"] * num_text + ["---:"] * (len(rows[0]) - num_text)
    return [f"| {' | '.join(cells)} |" for cells in (rows[0], rule, *rows[1:])]


def effects_chart(models: list[Model]) -> Chart:
    """Robust accuracy at both levels of each factor; a line joins models that differ in nothing else."""
    values = [100 * model.record.robust_acc.value for model in models]
    y = {
        "field": "robust", "type": "quantitative", "title": "robust accuracy, %",
        "scale": {"domain": [max(0, min(values) - 4), min(100, max(values) + 4)], "nice": False},
    }  # fmt: skip
    baseline = [100 * model.record.robust_acc.value for model in models if model.is_baseline]
    return Chart(
        {"hconcat": [panel(models, factor, y, baseline) for factor in FACTORS if pairs_of(models, factor)]},
        title="What each factor did",
        description="Robust accuracy under the suite at both levels of alpha, schedule and strength.",
    )


def panel(models: list[Model], factor: str, y: dict[str, Any], baseline: list[float]) -> dict[str, Any]:
    points = []
    for number, pair in enumerate(pairs_of(models, factor)):
        for model in pair:
            level, robust = str(model.levels[factor]), 100 * model.record.robust_acc.value
            points.append({"pair": number, "level": level, "robust": robust})
    levels = list(dict.fromkeys(point["level"] for point in points))
    x = {"field": "level", "type": "ordinal", "title": factor, "sort": levels, "axis": {"labelAngle": 0}}
    dots = {
        "data": {"values": points},
        "mark": {"type": "line", "point": {"size": 70, "color": BLUE}, "color": BLUE, "opacity": 0.8},
        "encoding": {"x": x, "y": y, "detail": {"field": "pair", "type": "nominal"}},
    }
    mean = {
        "data": {"values": points},
        "mark": {"type": "line", "color": ORANGE, "strokeWidth": 4, "opacity": 0.9},
        "encoding": {"x": x, "y": {**y, "aggregate": "mean"}},
    }
    rule = {
        "data": {"values": [{"robust": value} for value in baseline]},
        "mark": {"type": "rule", "color": GREEN, "strokeDash": [4, 4]},
        "encoding": {"y": y},
    }
    return {"layer": [rule, dots, mean], "width": 170, "height": 260}


def write_page(domain: str, docs: Path) -> None:
    """Pictures, and the part of the page between the domain's marks."""
    folder, pictures = SweepFolder(Path(f"runs/{domain}-sweep")), docs / "results" / domain
    models = load_models(folder)
    pictures.mkdir(parents=True, exist_ok=True)
    draw(effects_chart(models), pictures / "effects.png")
    report = build_report(folder.path)
    draw(front_charts(report.trials, report.objectives)[0], pictures / "front.png")
    photograph(Path(f"runs/{domain}-board/index.html"), pictures / "board.png")
    page = docs / "results.md"
    text = page.read_text(encoding="utf-8")
    begin, end = f"<!-- {domain}: made by bench/domains.py -->\n", f"<!-- {domain}: end -->\n"
    before, _, rest = text.partition(begin)
    _, found, after = rest.partition(end)
    assert found, f"{page}: no marks for {domain}"
    page.write_text(f"{before}{begin}{section(domain, models)}{end}{after}", encoding="utf-8")
    print(f"wrote {page} and {pictures}")


def section(domain: str, models: list[Model]) -> str:
    """What stands between the marks."""
    first = models[0].record
    commit = str(first.environment.get("git_commit"))[:12]
    minutes = sum(model.record.cost.train_s for model in models) / 60
    lines = [
        "",
        f"{first.created[:10]}, seed {first.seed}, commit {commit}: {len(models)} models, "
        f"{first.recipe['epochs']} epochs each, {minutes:.1f} minutes of training if one after the other, on "
        f"{first.cost.device}. "
        f"{first.data.num_images} test images, {first.threat.label}, suite {first.suite.name} version "
        f"{first.suite.version}. Accuracies in percent.",
        "",
        f"![Robust accuracy at both levels of each factor](results/{domain}/effects.png)",
        "",
        LEGEND,
        "",
        *effects_table(models),
        "",
        f"![Robust against clean accuracy on validation images](results/{domain}/front.png)",
        "",
        *trials_table(models),
        "",
        f"![The board](results/{domain}/board.png)",
        "",
    ]
    return "\n".join(lines) + "\n"
