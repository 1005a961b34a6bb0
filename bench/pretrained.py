"""What a pretrained start gives on four real sets: the probe, temper's defaults, and a plain PyTorch script.

    TEMPER_DATA=... python bench/pretrained.py --out runs/pretrained --seeds 1

Each line is a run of `temper train` without attacks, whose record holds the figures. The plain script is the
same network, images and steps in a dozen lines of PyTorch, with AdamW at 1e-3 and OneCycle. Finished runs are
kept; `--sets` and `--ways` choose among them.
"""

import argparse
import os
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.metrics import balanced_accuracy_score

from temper.api.runs import train
from temper.batches import augment
from temper.data import ShardSet, load_images, write_shards
from temper.models import build_model
from temper.recipe import Recipe, build_recipe
from temper.records import read_record

SETS: dict[str, dict[str, Any]] = {
    "magnetic_tile": {"fit": "stretch", "epochs": 12, "augment": (10, 0.05, True)},
    "chest_xray": {"fit": "pad", "epochs": 16, "augment": (5, 0.03, True)},
    "traffic_signs": {"fit": "pad", "epochs": 10, "augment": (10, 0.1, False)},
    "sign_digits": {"fit": "pad", "epochs": 10, "augment": (10, 0.1, True)},
}
OPTIM = {"kind": "adamw", "lr": "auto", "warmup_frac": 0.1, "max_grad_norm": 1.0, "ema_decay": "auto"}
SCHEDULE = {"kind": "full", "batch_norm": "frozen"}
WAYS: dict[str, dict[str, Any]] = {
    "defaults": {},
    "BatchNorm train": {"schedule": {**SCHEDULE, "batch_norm": "train"}},
    "rate 1e-4": {"optim": {**OPTIM, "lr": 1e-4}, "schedule": SCHEDULE},
    "rate 1e-3": {"optim": {**OPTIM, "lr": 1e-3}, "schedule": SCHEDULE},
    "no warm-up": {"optim": {**OPTIM, "warmup_frac": 0.0}},
    "no average": {"optim": {name: value for name, value in OPTIM.items() if name != "ema_decay"}},
    "rates by depth": {"schedule": {**SCHEDULE, "group_decay": 1.5}},
}
"""What differs from the defaults, one thing at a time."""
SIZE, BATCH_SIZE = 64, 32
PLAIN = "plain script"


def recipe_of(name: str, shards: Path, seed: int, changes: dict[str, Any]) -> Recipe:
    """Fine-tuning of EfficientNet-Lite0 without attacks."""
    own = SETS[name]
    degrees, shift, flip = own["augment"]
    augment = {"rotation_degrees": degrees, "shift_frac": shift, "horizontal_flip": flip}
    document = {
        "name": name.replace("_", "-"), "seed": seed, "epochs": own["epochs"],
        "threat": {"norm": "linf", "eps": 1 / 255},
        "data": {
            "target": str(shards), "image_size": SIZE, "fit": own["fit"], "batch_size": BATCH_SIZE,
            "sampling": "balanced", "augment": augment,
        },
        "model": {"backbone": "timm/tf_efficientnet_lite0", "weights": "pretrained"},
        "validation": {"steps": 0, "metric": "val/target/balanced_acc"},
        "tracking": {"wandb": False},
    }  # fmt: skip
    return build_recipe(document, changes)


def plain_script(recipe: Recipe) -> float:
    """Balanced test accuracy of the last epoch of a plain loop of the same steps."""
    shards = ShardSet.open(Path(recipe.data.target))
    splits = {name: load_images(shards, name, recipe.data.view) for name in ("train", "test")}
    torch.manual_seed(recipe.seed)
    classes = {"target": shards.classes}
    model = build_model(recipe.model, classes, image_size=SIZE, seed=recipe.seed)
    images, labels = torch.from_numpy(splits["train"].images), torch.from_numpy(splits["train"].labels)
    weights = (1 / torch.bincount(labels)[labels].float()).double()
    num_steps = len(labels) // BATCH_SIZE * recipe.epochs
    optimizer = torch.optim.AdamW(model.parameters(), 1e-3, weight_decay=5e-4)
    rates = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-3, total_steps=num_steps)
    for _ in range(num_steps):
        rows = torch.multinomial(weights, BATCH_SIZE, replacement=True)
        model.train()
        loss = F.cross_entropy(model(augment(images[rows], recipe.data.augment)), labels[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        rates.step()
    model.eval()
    with torch.no_grad():
        parts = torch.from_numpy(splits["test"].images).split(64)
        answers = torch.cat([model(part.float() / 255).argmax(1) for part in parts]).numpy()
    return float(balanced_accuracy_score(splits["test"].labels, answers))


def shards_of(name: str, out: Path) -> Path:
    """The shards of a set, written where they are not there yet."""
    shards = out / "shards" / name
    if not shards.exists():
        write_shards(Path(os.environ["TEMPER_DATA"]) / name, shards, size=128)
    return shards


def measured(name: str, way: str, seed: int, out: Path) -> tuple[float, float]:
    """Balanced accuracy on the test images, and that of the linear probe."""
    shards = shards_of(name, out)
    if way == PLAIN:
        kept = out / f"{name}-plain-{seed}.txt"
        if not kept.exists():
            kept.write_text(f"{plain_script(recipe_of(name, shards, seed, {}))}\n")
        return float(kept.read_text()), float("nan")
    run = out / f"{name}-{way.replace(' ', '-')}-{seed}"
    recipe = recipe_of(name, shards, seed, {"evaluation.suite": "quick", **WAYS[way]})
    if not (run / "record.json").exists():
        train(recipe, run, probe=False, resume=True)
    record = read_record(run / "record.json")
    floor = record.promises.adaptability
    assert floor is not None
    return record.balanced_acc, floor.frozen_start_balanced_acc


def table(sets: list[str], ways: list[str], seeds: int, out: Path) -> str:
    """Balanced accuracy in percent, mean and range over the seeds."""
    lines = [f"| start, steps | {' | '.join(sets)} |", f"|---|{'---|' * len(sets)}"]
    floors: dict[str, list[float]] = {name: [] for name in sets}
    rows: dict[str, list[str]] = {}
    for way in ways:
        for name in sets:
            found = [measured(name, way, seed, out) for seed in range(seeds)]
            values = 100 * np.array([value for value, _ in found])
            floors[name] += [100 * floor for _, floor in found if floor == floor]
            spread = f" ({values.min():.1f} to {values.max():.1f})" if seeds > 1 else ""
            rows.setdefault(way, []).append(f"{values.mean():.1f}{spread}")
            print(name, way, rows[way][-1], flush=True)
    probes = [f"{np.mean(floors[name]):.1f}" if floors[name] else "-" for name in sets]
    lines.append(f"| linear probe | {' | '.join(probes)} |")
    return "\n".join([*lines, *(f"| {way} | {' | '.join(cells)} |" for way, cells in rows.items())])


def main() -> None:
    """Run what is missing, and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("runs/pretrained"))
    parser.add_argument("--sets", nargs="+", default=list(SETS), choices=SETS)
    parser.add_argument("--ways", nargs="+", default=[PLAIN, *WAYS], choices=[PLAIN, *WAYS])
    parser.add_argument("--seeds", type=int, default=1)
    given = parser.parse_args()
    torch.set_num_threads(1)
    print(table(given.sets, given.ways, given.seeds, given.out))


if __name__ == "__main__":
    main()
