"""By which hash an experiment is known, in records and in checkpoints."""

from collections.abc import Mapping
from typing import Any

from temper.spec import content_hash

NOT_HASHED = ("name", "tracking", "checkpoint")
ADDED_LATER = (("data", "fold"), ("evaluation", "rejection"), ("model", "head"))
"""Blocks and their fields that count only where they are not ``null``."""


def hash_of_recipe(recipe: Mapping[str, Any]) -> str:
    """16 hex digits that tell the experiment of a resolved recipe, as plain data, from others.

    Tracking, names, when validation is done, when a run is saved and who shares a GPU do not count: they
    change no number. Of workers that come and go the largest number counts, for which batches are cut.
    Recipes from before there were folds, rejection, or probes keep the hash by which their records are known.
    """
    hashed = {name: value for name, value in recipe.items() if name not in NOT_HASHED}
    validation, workers = (hashed.get(name) for name in ("validation", "workers"))
    for block, field in ADDED_LATER:
        own = hashed.get(block)
        if isinstance(own, dict) and own.get(field) is None:
            hashed[block] = {name: value for name, value in own.items() if name != field}
    if isinstance(validation, dict):
        hashed["validation"] = {
            name: value for name, value in validation.items() if name != "is_asynchronous"
        }
    if isinstance(workers, dict):
        hashed["workers"] = {name: value for name, value in workers.items() if name != "gpus_per_worker"}
        if isinstance(workers.get("num_workers"), list | tuple):
            hashed["workers"]["num_workers"] = max(workers["num_workers"])
    return content_hash(hashed)
