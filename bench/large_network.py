"""``temper train`` and ``temper evaluate`` of an EfficientNet-Lite0 at 128 px, against a bare loop in memory.

Both take the very same steps, each in its own process with one thread, without Ray. Validation and evaluation
get the largest batches there are: 256 images, and 128 under an attack so weak that hardly any falls. The peer
only trains: whoever can train a network should be able to evaluate it. Weights are random, which makes no
difference to memory.
"""

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil

from photos import write_photos
from row import Row
from temper.data import write_shards
from train_speed import COMMAND, POLL_S, Sides, save_images, usage_of, write_recipe

SIZE, BATCH_SIZE, EPOCHS = 128, 32, 4
NUM_TRAIN, NUM_VAL, NUM_TEST = 192, 256, 512
"""A network that guesses is right about a quarter of the test images, which are one chunk."""
EPS = 0.25 / 255
TOLERANCE = 0.1
"""Of an epoch's loss: the bare loop starts PGD elsewhere in the ball."""
NAME = "EfficientNet-Lite0 at 128 px"


def rows(folder: Path) -> Iterator[Row]:
    """The processor's time per epoch and peak memory of training, and peak memory of evaluating."""
    count = NUM_TRAIN + NUM_VAL + NUM_TEST
    photos = write_photos(folder / "photos", count, SIZE)
    fractions = {"val_frac": NUM_VAL / (NUM_VAL + NUM_TRAIN), "test_frac": NUM_TEST / count}
    write_shards(photos, folder / "shards", size=SIZE, **fractions)
    save_images(folder / "shards", SIZE, folder / "train.npz")
    pgd, once = {"kind": "pgd", "eps": EPS, "steps": 3}, {"rounds": 1, "warm_ups": 0}
    for name, adversary in (("clean", None), ("PGD-3", pgd)):
        recipe = write_recipe(
            folder / f"{name}.yaml",
            folder / "shards",
            adversary,
            EPOCHS,
            threat={"eps": EPS},
            data={"image_size": SIZE, "batch_size": BATCH_SIZE},
            model={"backbone": "timm/tf_efficientnet_lite0"},
            optim={"lr": 0.01},
            validation={"steps": 2},
            workers={"num_workers": 0},
        )
        sides = Sides(recipe, folder, TOLERANCE, psutil.Process)
        label = f"temper train, {name}, {NAME}"
        cpu_s, memory = sides.latest("epoch_cpu_s"), sides.latest("peak_mb")
        yield Row(f"{label}, by the processor", "bare loop", "CPU s/epoch", "<= 1.05", *cpu_s, **once)
        yield Row(f"peak memory of {label}", "bare loop", "MB", "<= 1.25", *memory, **once)
    label = f"peak memory of temper evaluate, {NAME}"
    yield Row(label, "bare loop, training", "MB", "<= 1.25", lambda: evaluate(sides.out), memory[1], **once)


def evaluate(run: Path) -> float:
    """Peak memory in MB of evaluating ``run``."""
    command = [*COMMAND[:-1], "evaluate", str(run), "--set", f"evaluation.chunk_size={NUM_TEST}"]
    peak = 0.0
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        watched = psutil.Process(process.pid)
        while process.poll() is None:
            peak = max(peak, usage_of(watched)[1])
            time.sleep(POLL_S)
        said = process.stdout.read() if process.stdout else ""
    if process.returncode:
        sys.exit(f"{' '.join(command)}\n{said}")
    return peak
