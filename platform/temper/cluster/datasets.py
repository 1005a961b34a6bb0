"""The images of open shards: decoded once and shared, or streamed by Ray Data."""

from typing import Any

from temper.batches import Batches, ResidentBatches
from temper.cluster.streaming import StreamedBatches, load_images_with_ray
from temper.data import Images, Split, decoded_bytes, load_images, window_sizes
from temper.recipe import Recipe
from temper.run.open_data import OpenData
from temper.seeds import derive_seed
from temper.training import TrainData

RESIDENT_LIMIT_BYTES = 2 * 2**30
LARGE_BYTES = 64 * 2**20
"""Encoded bytes from which the cluster decodes faster than one process (Ray Data takes seconds to start)."""


def is_resident(recipe: Recipe, data: OpenData) -> bool:
    """Whether the training splits are decoded once and kept, or streamed."""
    if recipe.data.resident != "auto":
        return recipe.data.resident
    total = sum(decoded_bytes(shards, recipe.data.view) for shards in data.shards.values())
    return total <= RESIDENT_LIMIT_BYTES or recipe.data.sampling == "balanced"


def decode_splits(recipe: Recipe, data: OpenData, *, with_ray: bool) -> dict[str, Any]:
    """``<task>/<split>`` -> decoded images: validation always, training where it is resident.

    With Ray, the values are references into its object store, which every trial reads without a copy;
    a large set is decoded by the whole cluster, a small one here, before Ray Data would have started.
    """
    wanted: list[Split] = ["train", "val"] if is_resident(recipe, data) else ["val"]
    decoded: dict[str, Any] = {}
    for task, shards in data.shards.items():
        is_large = shards.manifest.bytes > LARGE_BYTES
        load = load_images_with_ray if with_ray and is_large else load_images
        for split in wanted:
            decoded[f"{task}/{split}"] = load(shards, split, recipe.data.view)
    if with_ray:
        import ray

        return {name: ray.put(images) for name, images in decoded.items()}
    return decoded


def build_train_data(
    recipe: Recipe, data: OpenData, decoded: dict[str, Any], *, rank: int = 0, world_size: int = 1
) -> TrainData:
    """The training data of one rank, from what ``decode_splits`` returned."""
    images = {name: _resolve(value) for name, value in decoded.items() if name.endswith("/train")}
    num_shares = max(recipe.workers.num_shares, world_size)

    def batches(task: str, batch_size: int) -> Batches:
        shards, seed = data.shards[task], derive_seed(recipe.seed, "batches", task)
        ours = {"rank": rank, "world_size": world_size, "num_shares": num_shares}
        if f"{task}/train" in images:
            return ResidentBatches(
                images[f"{task}/train"],
                batch_size=batch_size,
                seed=seed,
                is_balanced=task == "target" and recipe.data.sampling == "balanced",
                windows=window_sizes(shards),
                **ours,
            )
        return StreamedBatches(
            shards,
            view=recipe.data.view,
            batch_size=batch_size,
            seed=seed,
            **ours,
        )

    source_batch_size = recipe.data.source_batch_size or recipe.data.batch_size
    return TrainData(
        classes=data.classes,
        fingerprints=data.fingerprints,
        class_counts=data.shards["target"].class_counts("train"),
        target=batches("target", recipe.data.batch_size),
        source=batches("source", source_batch_size) if recipe.objective.uses_source else None,
        val=val_images(data, decoded),
        num_shares=num_shares,
        depth=data.shards["target"].manifest.depth,
    )


def val_images(data: OpenData, decoded: dict[str, Any]) -> dict[str, Images]:
    """Task -> the whole validation split, from what ``decode_splits`` returned."""
    return {task: _resolve(decoded[f"{task}/val"]) for task in data.shards}


def _resolve(value: Any) -> Images:
    if isinstance(value, Images):
        return value
    import ray

    images: Images = ray.get(value)
    return images
