"""A recipe's images, opened: its shards, checked against what the recipe asks of them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from temper.data import MIN_SHARE, ShardSet
from temper.errors import RecipeError, ShardError
from temper.models import start_classes
from temper.recipe import Recipe
from temper.run.test_sets import open_tests, refuse_colour
from temper.seeds import derive_seed
from temper.storage import exists, from_run, is_remote, named, portable


@dataclass(frozen=True)
class OpenData:
    """The shards of a recipe's tasks, checked."""

    shards: dict[str, ShardSet]
    start_classes: list[str] | None = None
    """Classes of the start model's own head, where it is a source without images."""
    tests: dict[str, ShardSet] = field(default_factory=dict)
    """Further test sets by name."""

    @property
    def classes(self) -> dict[str, list[str]]:
        """Task -> class names, of every head that the model has."""
        own = {task: shards.classes for task, shards in self.shards.items()}
        return own if self.start_classes is None else {**own, "source": self.start_classes}

    @property
    def fingerprints(self) -> dict[str, str]:
        return {task: shards.fingerprint for task, shards in self.shards.items()}


def open_data_of_run(recipe: Recipe, folder: Path, fingerprints: Mapping[str, str]) -> OpenData:
    """Open the shards that the run in ``folder`` was trained on: beside the run, or beside the caller.

    Raises:
        ShardError: in neither place, or damaged.
        RecipeError: as ``open_data``.
    """
    places = [path for path in (recipe.data.target, recipe.data.source) if path is not None]
    beside_run = [from_run(path, folder) for path in places]
    tests = {
        name: place if exists(place) else from_run(place, folder) for name, place in recipe.data.tests.items()
    }
    asked = [*beside_run, *tests.values()]
    missing = [path for path in asked if not (path.is_absolute() or is_remote(path) or path.exists())]
    if missing:
        raise ShardError(
            f"{missing[0]}: no shards here, nor in any folder around the run {named(folder)}; put them "
            "back, or run the command in the folder where the run was trained"
        )
    found = open_data(recipe, beside_run, tests)
    if found.fingerprints != fingerprints and beside_run != places and all(map(exists, places)):
        return open_data(recipe, tests=tests)
    return found


def open_data(
    recipe: Recipe, places: Sequence[Path] = (), tests: Mapping[str, Path] | None = None
) -> OpenData:
    """Open the shards that ``recipe`` names, or that now lie in ``places``: the target's and the source's.

    ``tests``: where further test sets now lie.

    Raises:
        ShardError: missing or damaged shards.
        RecipeError: too few images in a batch or a training split for the workers, more shots than images of
            a class, a class too small for the fold, a start without the head that the source term distils, a
            further test set of other classes, or a grey threat model for images with colour.
    """
    check_batch_sizes(recipe)
    own = [path for path in (recipe.data.target, recipe.data.source) if path is not None]
    paths = dict(zip(("target", "source"), places or own, strict=False))
    # Absolute, because workers may have another working directory.
    shards = {task: ShardSet.open(portable(path)) for task, path in paths.items()}
    refuse_colour(recipe.threat, shards["target"], named(paths["target"]))
    if recipe.data.fold is not None:
        shards["target"] = recipe.data.fold.apply(shards["target"])
    if recipe.data.shots_per_class is not None:
        seed = derive_seed(recipe.seed, "few-shot")
        shards["target"] = shards["target"].few_shot(recipe.data.shots_per_class, seed)
    further = recipe.data.tests if tests is None else tests
    opened_tests = open_tests(further, shards["target"])
    for name, opened in opened_tests.items():
        refuse_colour(recipe.threat, opened, f"data.tests.{name}")
    data = OpenData(shards, _classes_of_start(recipe), opened_tests)
    for task, opened in shards.items():
        images, shares = len(opened.rows("train")), recipe.workers.num_shares
        if images < MIN_SHARE * shares:
            raise RecipeError(
                f"workers.num_workers: {shares} workers cannot share the {images} training images of the "
                f"{task}"
            )
    return data


def check_batch_sizes(recipe: Recipe) -> None:
    """Check that every worker gets part of each batch.

    Raises:
        RecipeError: a batch has too few images.
    """
    shares = recipe.workers.num_shares
    for name in ("batch_size", "source_batch_size"):
        size = getattr(recipe.data, name)
        if size is not None and size < MIN_SHARE * shares:
            raise RecipeError(
                f"data.{name}: {shares} workers cannot share {size} images, the batch of the whole run; "
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
            f"model.weights {spec.weights} has none; name data.source, or use weights with a classifier"
        )
    return found
