"""By which hash an experiment is known, in records and in checkpoints."""

from collections.abc import Mapping
from typing import Any

from temper.spec import content_hash

NOT_HASHED = ("name", "tracking", "checkpoint")


def hash_of_recipe(recipe: Mapping[str, Any]) -> str:
    """16 hex digits that tell the experiment of a resolved recipe, as plain data, from others.

    Tracking, names, when validation is done, when a run is saved and who shares a GPU do not count: they
    change no number. Of workers that come and go the largest number counts, for which batches are cut.
    Recipes from before there were folds, or rejection, keep the hash by which their records are known.
    """
    hashed = {name: value for name, value in recipe.items() if name not in NOT_HASHED}
    data, validation, workers = (hashed.get(name) for name in ("data", "validation", "workers"))
    if isinstance(data, dict) and data.get("fold") is None:
        hashed["data"] = {name: value for name, value in data.items() if name != "fold"}
    evaluation = hashed.get("evaluation")
    if isinstance(evaluation, dict) and evaluation.get("rejection") is None:
        hashed["evaluation"] = {name: value for name, value in evaluation.items() if name != "rejection"}
    if isinstance(validation, dict):
        hashed["validation"] = {
            name: value for name, value in validation.items() if name != "is_asynchronous"
        }
    if isinstance(workers, dict):
        hashed["workers"] = {name: value for name, value in workers.items() if name != "gpus_per_worker"}
        if isinstance(workers.get("num_workers"), list | tuple):
            hashed["workers"]["num_workers"] = max(workers["num_workers"])
    return content_hash(hashed)
