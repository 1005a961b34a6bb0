"""Opening a recipe's images: decoded once and shared, or streamed by Ray Data."""

from dataclasses import dataclass
from typing import Any

from temper.batches import Batches, ResidentBatches
from temper.cluster.streaming import StreamedBatches, load_images_with_ray
from temper.data import MIN_SHARE, Images, ShardSet, Split, decoded_bytes, load_images
from temper.errors import RecipeError
from temper.models import start_classes
from temper.recipe import Recipe
from temper.seeds import derive_seed
from temper.storage import portable
from temper.training import TrainData

RESIDENT_LIMIT_BYTES = 2 * 2**30
LARGE_BYTES = 64 * 2**20
"""Encoded bytes from which the cluster decodes faster than one process (Ray Data takes seconds to start)."""


@dataclass(frozen=True)
class OpenData:
    """The shards of a recipe's tasks, checked."""

    shards: dict[str, ShardSet]
    start_classes: list[str] | None = None
    """Classes of the start model's own head, where it is a source without images."""

    @property
    def classes(self) -> dict[str, list[str]]:
        """Task -> class names, of every head that the model has."""
        own = {task: shards.classes for task, shards in self.shards.items()}
        return own if self.start_classes is None else {**own, "source": self.start_classes}

    @property
    def fingerprints(self) -> dict[str, str]:
        return {task: shards.fingerprint for task, shards in self.shards.items()}


def open_data(recipe: Recipe) -> OpenData:
    """Open the shards that ``recipe`` names.

    Raises:
        ShardError: missing or damaged shards.
        RecipeError: too few images in a batch or a training split for the workers, more shots than images of
            a class, a class too small for the fold, or a start without the head that the source term distils.
    """
    check_batch_sizes(recipe)
    paths = {"target": recipe.data.target} | ({"source": recipe.data.source} if recipe.data.source else {})
    # Absolute, because workers may have another working directory.
    shards = {task: ShardSet.open(portable(path)) for task, path in paths.items()}
    if recipe.data.fold is not None:
        shards["target"] = recipe.data.fold.apply(shards["target"])
    if recipe.data.shots_per_class is not None:
        seed = derive_seed(recipe.seed, "few-shot")
        shards["target"] = shards["target"].few_shot(recipe.data.shots_per_class, seed)
    data = OpenData(shards, _classes_of_start(recipe))
    for task, opened in shards.items():
        images, shares = len(opened.rows("train")), recipe.workers.num_shares
        if images < MIN_SHARE * shares:
            raise RecipeError(
                f"workers.num_workers: {shares} workers cannot share "
                f"the {images} training images of the {task}"
            )
    return data


def check_batch_sizes(recipe: Recipe) -> None:
    """See that every worker gets something of each batch.

    Raises:
        RecipeError: a batch has too few images.
    """
    shares = recipe.workers.num_shares
    for field in ("batch_size", "source_batch_size"):
        size = getattr(recipe.data, field)
        if size is not None and size < MIN_SHARE * shares:
            raise RecipeError(
                f"data.{field}: {shares} workers cannot share {size} images, the batch of the whole run; "
                f"allowed: at least {MIN_SHARE * shares}, {MIN_SHARE} for each of workers.num_workers"
            )


def _classes_of_start(recipe: Recipe) -> list[str] | None:
    """Where the source head distils its start without source images, what that head told apart."""
    if "source" not in recipe.objective.trained_heads or recipe.data.source is not None:
        return None
    spec = recipe.model
    found = start_classes(spec.weights, spec.backbone, spec.sha256)
    if found is None:
        raise RecipeError(
            f"objective.source_term: {recipe.objective.term.kind} needs the start's own head, and "
            f"model.weights {spec.weights} has none; name data.source, or take weights with a classifier"
        )
    return found


def is_resident(recipe: Recipe, data: OpenData) -> bool:
    """Whether the training splits are decoded once and kept, or streamed."""
    if recipe.data.resident != "auto":
        return recipe.data.resident
    total = sum(decoded_bytes(shards, recipe.data.image_size) for shards in data.shards.values())
    return total <= RESIDENT_LIMIT_BYTES or recipe.data.sampling == "balanced"


def decode_splits(recipe: Recipe, data: OpenData, *, with_ray: bool) -> dict[str, Any]:
    """``<task>/<split>`` -> decoded images: validation always, training where it is resident.

    With Ray, the values are references into its object store, which every trial reads without a copy;
    a large set is decoded by the whole cluster, a small one here, before Ray Data would have started.
    """
    wanted: list[Split] = ["train", "val"] if is_resident(recipe, data) else ["val"]
    size, fit = recipe.data.image_size, recipe.data.fit
    decoded: dict[str, Any] = {}
    for task, shards in data.shards.items():
        is_large = shards.manifest.bytes > LARGE_BYTES
        load = load_images_with_ray if with_ray and is_large else load_images
        for split in wanted:
            decoded[f"{task}/{split}"] = load(shards, split, size, fit)
    if with_ray:
        import ray

        return {name: ray.put(images) for name, images in decoded.items()}
    return decoded


def build_train_data(
    recipe: Recipe, data: OpenData, decoded: dict[str, Any], *, rank: int = 0, world_size: int = 1
) -> TrainData:
    """The feed of one rank, from what ``decode_splits`` returned."""
    images = {name: _resolve(value) for name, value in decoded.items() if name.endswith("/train")}
    num_shares = max(recipe.workers.num_shares, world_size)

    def batches(task: str, batch_size: int) -> Batches:
        seed = derive_seed(recipe.seed, "batches", task)
        if f"{task}/train" in images:
            return ResidentBatches(
                images[f"{task}/train"],
                batch_size=batch_size,
                seed=seed,
                rank=rank,
                world_size=world_size,
                is_balanced=task == "target" and recipe.data.sampling == "balanced",
                num_shares=num_shares,
            )
        return StreamedBatches(
            data.shards[task],
            image_size=recipe.data.image_size,
            fit=recipe.data.fit,
            batch_size=batch_size,
            seed=seed,
            rank=rank,
            world_size=world_size,
            num_shares=num_shares,
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
