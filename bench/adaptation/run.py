"""Ways of adapting side by side, with and without hardening, over three seeds: docs/adaptation.md.

    python bench/adaptation/run.py digits
    python bench/adaptation/run.py signs --data $TEMPER_DATA
    python bench/adaptation/run.py table

The first two train, and go on where they were interrupted; the third writes the page from their records.
"""

import argparse
import statistics
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from temper.cluster.evaluate import evaluate_run
from temper.cluster.launch import launch
from temper.data import write_shards
from temper.digits import write_digits
from temper.recipe import Recipe, build_recipe, pretrain_recipe
from temper.records import EvaluationRecord, RunFolder, read_record
from temper.spec import read_yaml
from temper.training import read_state

HERE = Path(__file__).parent
PAGE = HERE.parents[1] / "docs/adaptation.md"
SEEDS = (0, 1, 2)
STEPS = 3
METHODS: dict[str, dict[str, Any]] = {
    "head_only": {"schedule": {"kind": "head_only"}},
    "full": {"schedule": {"kind": "full"}},
    "gradual": {"schedule": {"kind": "gradual", "epochs_per_group": 2}},
    "lp_ft": {"schedule": {"kind": "lp_ft", "head_frac": 0.3, "full_lr_factor": 0.5}},
    "lora": {"model.adapter": {"kind": "lora", "rank": 8}},
    "adalora": {"model.adapter": {"kind": "adalora", "init_rank": 12, "target_rank": 8}},
}


def shards_of(name: str, data: Path | None, out: Path) -> dict[str, str]:
    """Shards of the target and of the source of one case."""
    if name == "digits":
        source, target = write_digits(out / "images")
    else:
        assert data is not None, "--data is the folder of image sets"
        source, target = data / "traffic_signs", data / "sign_digits"
    for task, images in (("source", source), ("target", target)):
        if not (out / task / "manifest.json").exists():
            write_shards(images, out / task)
    return {f"data.{task}": str((out / task).resolve()) for task in ("source", "target")}


def recipe_of(name: str, shards: dict[str, str], seed: int, is_hardened: bool, **more: Any) -> Recipe:
    """The case's recipe; a hardened run starts from a hardened start."""
    document = read_yaml(HERE / f"{name}.yaml")
    eps = document["threat"]["eps"]
    adversary = {"kind": "pgd", "eps": eps, "steps": STEPS} if is_hardened else None
    pretraining = {} if "model.weights" in more else {"pretrain.adversary": adversary}
    start = {"pretrain": None} if "model.weights" in more else {}
    overrides = {"seed": seed, "objective.adversary": adversary, **shards, **pretraining, **start, **more}
    return build_recipe(document, overrides, name)


def train(recipe: Recipe, out: Path) -> None:
    """Train where it is not finished yet."""
    if not (out / "last/state.json").exists() or not read_state(out / "last").is_finished:
        launch(recipe, out)


def run(name: str, data: Path | None, out: Path) -> None:
    """Every run of one case."""
    shards = shards_of(name, data, out / name)
    for seed in SEEDS:
        for is_hardened in (False, True):
            folder = out / name / f"seed-{seed}" / ("hardened" if is_hardened else "plain")
            train(pretrain_recipe(recipe_of(name, shards, seed, is_hardened)), folder / "start")
            for method, overrides in METHODS.items():
                weights = {"model.weights": str(folder / "start")}
                train(recipe_of(name, shards, seed, is_hardened, **weights, **overrides), folder / method)
                if not RunFolder(folder / method).record.exists():
                    record = evaluate_run(folder / method)
                    print(folder / method, record.clean_acc.value, record.robust_acc.value, flush=True)


def rows_of(out: Path, name: str) -> Iterator[list[str]]:
    """One row for each method, without and with hardening: means over the seeds, and their spread."""
    for state in ("plain", "hardened"):
        for method in METHODS:
            records = [read_record(out / name / f"seed-{s}" / state / method / "record.json") for s in SEEDS]
            yield [
                method,
                "yes" if state == "hardened" else "no",
                _percent([record.clean_acc.value for record in records]),
                _percent([record.robust_acc.value for record in records]),
                _percent([record.source_retention or 0.0 for record in records]),
                f"{records[0].model.num_trained_params:,}",
                f"{statistics.mean(record.cost.train_s for record in records):.0f}",
            ]


def _percent(values: list[float]) -> str:
    return f"{100 * statistics.mean(values):.1f} ± {100 * statistics.stdev(values):.1f}"


def table(out: Path) -> str:
    """The page's tables."""
    titles = ["method", "hardened", "clean %", "robust %", "source retention %", "trained", "seconds"]
    parts = []
    for name in ("digits", "signs"):
        recipe: EvaluationRecord = read_record(out / name / "seed-0/plain/full/record.json")
        lines = [f"## {name}: {recipe.threat.label}, suite {recipe.suite.name}", ""]
        lines += [f"| {' | '.join(titles)} |", "|---|---|" + "---:|" * (len(titles) - 2)]
        lines += [f"| {' | '.join(row)} |" for row in rows_of(out, name)]
        parts.append("\n".join(lines))
    return "\n\n".join([*parts, ranks_table(out)]) + "\n"


def ranks_table(out: Path) -> str:
    """Where AdaLoRA left its ranks on the signs: means over the seeds."""
    states = ("plain", "hardened")
    found = {
        state: [
            read_record(out / f"signs/seed-{seed}/{state}/adalora/record.json").model.adapter_ranks
            for seed in SEEDS
        ]
        for state in states
    }
    lines = ["## signs: ranks that AdaLoRA left, of 12 at the start and 8 on average", ""]
    lines += ["| layer | plain | hardened |", "|---|---:|---:|"]
    for layer in found["plain"][0]:
        means = [f"{statistics.mean(ranks[layer] for ranks in found[state]):.1f}" for state in states]
        lines.append(f"| {layer} | {' | '.join(means)} |")
    return "\n".join(lines)


def main() -> None:
    """Train a case, or write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["digits", "signs", "table"])
    parser.add_argument("--data", type=Path)
    parser.add_argument("--out", type=Path, default=Path("runs/adaptation"))
    arguments = parser.parse_args()
    if arguments.what != "table":
        run(arguments.what, arguments.data, arguments.out)
        return
    head, mark, _ = PAGE.read_text(encoding="utf-8").partition("<!-- tables -->\n")
    PAGE.write_text(head + mark + "\n" + table(arguments.out), encoding="utf-8")
    print(f"wrote {PAGE}")


if __name__ == "__main__":
    main()
