"""By which hash an experiment is known, in records and in checkpoints."""

from collections.abc import Mapping
from typing import Any

from temper.spec import content_hash

NOT_HASHED = ("name", "tracking", "checkpoint")
ADDED_LATER = (
    ("data", "fold"),
    ("data", "tests"),
    ("evaluation", "rejection"),
    ("evaluation", "allow_leakage"),
    ("model", "head"),
)
"""Blocks and their fields that count only where they are neither ``null``, ``false`` nor empty."""
OF_EVALUATION = ("name", "tracking", "evaluation", "threat", "workers")
"""Fields of a recipe that may be others when the run is evaluated than when it was trained."""
OF_EVALUATION_DATA = ("target", "source", "image_size", "fit", "tests")
AUGMENTS_ADDED_LATER = ("zoom_frac", "contrast_frac", "brightness", "gamma")
"""Fields of ``data.augment`` that count only where they are not 0."""


def hash_of_recipe(recipe: Mapping[str, Any]) -> str:
    """16 hex digits that tell the experiment of a resolved recipe, as plain data, from others.

    Tracking, names, when validation is done, when a run is saved and who shares a GPU do not count: they
    change no number. Of workers that come and go the largest number counts, for which batches are cut.
    Recipes from before there were folds, rejection, probes or further test sets keep the hash by which their
    records are known.
    """
    return content_hash(hashed_part(recipe))


def hashed_part(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """What of a resolved recipe counts for its hash."""
    hashed = {name: value for name, value in recipe.items() if name not in NOT_HASHED}
    validation, workers = (hashed.get(name) for name in ("validation", "workers"))
    for block, field in ADDED_LATER:
        own = hashed.get(block)
        if isinstance(own, dict) and own.get(field) in (None, False, {}):
            hashed[block] = {name: value for name, value in own.items() if name != field}
    data = hashed.get("data")
    if isinstance(data, dict) and isinstance(data.get("augment"), dict):
        counted = {
            name: value
            for name, value in data["augment"].items()
            if value or name not in AUGMENTS_ADDED_LATER
        }
        hashed["data"] = {**data, "augment": counted}
    data = hashed.get("data")
    if isinstance(data, dict) and isinstance(data.get("fold"), dict) and not data["fold"].get("by_site"):
        fold = {name: value for name, value in data["fold"].items() if name != "by_site"}
        hashed["data"] = {**data, "fold": fold}
    if isinstance(validation, dict):
        hashed["validation"] = {
            name: value for name, value in validation.items() if name != "is_asynchronous"
        }
    if isinstance(workers, dict):
        hashed["workers"] = {name: value for name, value in workers.items() if name != "gpus_per_worker"}
        if isinstance(workers.get("num_workers"), list | tuple):
            hashed["workers"]["num_workers"] = max(workers["num_workers"])
    return hashed


def of_training(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """What of a resolved recipe must be as it was when the run was trained, whoever evaluates it."""
    kept = {name: value for name, value in recipe.items() if name not in OF_EVALUATION}
    data = recipe.get("data")
    if isinstance(data, Mapping):
        kept["data"] = {name: value for name, value in data.items() if name not in OF_EVALUATION_DATA}
    return kept
