"""Which way of hardening a pretrained network is worth its minutes: prints the table of docs/adaptation.md.

    TEMPER_DATA=... python bench/hardening_cost.py --out runs/hardening

Every way gets about as many passes through EfficientNet-Lite0 at 64 px, so the cheaper its steps, the more of
them. First comes what `temper fit` trains with: two steps of attack, eps that rises over 70 % of the run, and
weights averaged over the last tenth. Finished runs are kept; `--sets` and `--ways` choose among them.
"""

import argparse
from pathlib import Path
from typing import Any

import torch

from pretrained import BATCH_SIZE, recipe_of, shards_of
from temper.api.runs import train
from temper.data import ShardSet
from temper.recipe import Recipe
from temper.records import EvaluationRecord, read_record

EPS: dict[str, float] = {"magnetic_tile": 1 / 255, "chest_xray": 4 / 255}
ATTACK_COST = 1 / 3
"""A step of attack, of a step of training (docs/log.md)."""
BUDGET = 1600
"""Steps of training without attacks that would take as long."""
SLOW_RISE = {"kind": "ramp", "ramp_frac": 0.7}
MAX_TESTED = 300
LIGHT = {"zoom_frac": 0.15, "contrast_frac": 0.3, "brightness": 0.15, "gamma": 0.3}

PGD_2 = {"kind": "pgd", "steps": 2}
FAST = {"kind": "fast", "guard": {"action": "return"}, "attack_batch_norm": "eval"}
VALIDATION = {"steps": 3, "metric": "val/target/robust_balanced_acc"}
WAYS: dict[str, tuple[float, dict[str, Any], dict[str, Any]]] = {
    "PGD-2": (1 + 2 * ATTACK_COST, PGD_2, {}),
    "PGD-3": (1 + 3 * ATTACK_COST, {"kind": "pgd", "steps": 3}, {}),
    "fast, guarded": (1 + ATTACK_COST, FAST, {}),
    "free, 4 replays": (4, {"kind": "free", "replays": 4}, {}),
    "TRADES, 2 steps": (2 + 2 * ATTACK_COST, {"kind": "trades", "steps": 2, "beta": 3.0}, {}),
    "PGD-2, eps from the start": (1 + 2 * ATTACK_COST, {**PGD_2, "eps_schedule": {"kind": "constant"}}, {}),
    "PGD-2, not averaged": (1 + 2 * ATTACK_COST, PGD_2, {"optim.ema_decay": None}),
}  # fmt: skip
"""Name -> cost of a batch, adversary, other changes of the recipe."""


def hardened(name: str, way: str, seed: int, out: Path) -> tuple[Recipe, EvaluationRecord]:
    """A run of one way, trained and evaluated where it is not there yet."""
    shards = shards_of(name, out)
    cost, adversary, changes = WAYS[way]
    num_batches = len(ShardSet.open(shards).rows("train")) // BATCH_SIZE
    epochs = round(BUDGET / cost / num_batches)
    threat = {"eps": EPS[name], "eps_schedule": SLOW_RISE}
    recipe = recipe_of(name, shards, seed, {
        "epochs": epochs, "threat.eps": EPS[name], "objective.adversary": {**threat, **adversary},
        "validation": {**VALIDATION, "every_epochs": max(1, epochs // 8)},
        "evaluation": {"suite": "quick", "max_images": MAX_TESTED},
        **{f"data.augment.{key}": value for key, value in LIGHT.items()}, **changes,
    })  # fmt: skip
    run = out / f"{name}-{way.replace(', ', '-').replace(' ', '-')}-{seed}"
    if not (run / "record.json").exists():
        train(recipe, run, probe=False, resume=True)
    return recipe, read_record(run / "record.json")


def row(name: str, way: str, seed: int, out: Path) -> str:
    """A line of the table."""
    recipe, record = hardened(name, way, seed, out)
    cells = (way, recipe.epochs, f"{record.cost.train_s / 60:.1f}", f"{100 * record.balanced_acc:.1f}",
             f"{100 * record.robust_balanced_acc:.1f}", record.status)  # fmt: skip
    return f"| {' | '.join(map(str, cells))} |"


def main() -> None:
    """Run what is missing, and print the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("runs/hardening"))
    parser.add_argument("--sets", nargs="+", default=list(EPS), choices=EPS)
    parser.add_argument("--ways", nargs="+", default=list(WAYS), choices=WAYS)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    torch.set_num_threads(1)
    for name in given.sets:
        print(f"{name}, Linf {EPS[name] * 255:g}/255\n", flush=True)
        print(
            "| way | epochs | minutes | clean % | robust % | gates |\n|---|---:|---:|---:|---:|---|",
            flush=True,
        )
        for way in given.ways:
            print(row(name, way, given.seed, given.out), flush=True)
        print()


if __name__ == "__main__":
    main()
