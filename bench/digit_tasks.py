"""The two digit tasks as shards, for benchmarks of sweeps."""

from pathlib import Path

from temper.data import write_shards
from temper.digits import write_digits


def write_tasks(folder: Path) -> dict[str, str]:
    """Shards below ``folder``; the overrides that point a recipe at them."""
    paths = {}
    for task, images in zip(("source", "target"), write_digits(folder / "images"), strict=True):
        paths[f"data.{task}"] = str(folder / "shards" / task)
        write_shards(images, folder / "shards" / task)
    return paths
