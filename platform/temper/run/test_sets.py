"""The shards of further test sets, and their images with the labels of the target."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from temper.data import SPLITS, Images, ImageView, ShardSet, Split, load_images, stratified_subset
from temper.errors import RecipeError, TemperError
from temper.spec import Threat
from temper.storage import named, portable


def open_tests(
    places: Mapping[str, Path], target: ShardSet, field: str = "data.tests"
) -> dict[str, ShardSet]:
    """The shards of each of ``places``, checked to have the classes of ``target``.

    Raises:
        ShardError: missing or damaged shards.
        RecipeError: other classes, or no test images.
    """
    # Absolute, because workers may have another working directory.
    found = {name: ShardSet.open(portable(place)) for name, place in places.items()}
    for name, shards in found.items():
        where = f"{field}.{name}: {named(places[name])}"
        lacking, other = _listed(target.classes, shards.classes), _listed(shards.classes, target.classes)
        if lacking or other:
            differs = [*([f"lacks {lacking}"] if lacking else []), *([f"also has {other}"] if other else [])]
            raise RecipeError(
                f"{where} {' and '.join(differs)}; a further test set needs exactly the classes of the "
                f"target {named(target.path)}"
            )
        if split_of(shards) is None:
            raise RecipeError(
                f"{where} has several splits, but no test images; make shards with a test split"
            )
    return found


def refuse_colour(threat: Threat, shards: ShardSet, what: str) -> None:
    """Check that a grey ``threat`` has grey images.

    Raises:
        RecipeError: some have colour.
    """
    if threat.is_grey and shards.manifest.channels == 3:
        raise RecipeError(
            f"threat.channels: grey is for grey images, but some of {what} have colour; set colour"
        )


def advice_on_channels(threat: Threat, shards: Path) -> str | None:
    """What to change where the grey images of ``shards`` are attacked in colour; ``None``: nothing."""
    try:
        channels = ShardSet.open(portable(shards)).manifest.channels
    except TemperError:  # they may lie on another machine
        return None
    if threat.is_grey or threat.norm == "semantic" or channels == 3:
        return None
    return (
        "the images are grey, but attacks change each channel on its own, which no grey file can hold; to "
        "change all alike (on a board of its own): --set threat.channels=grey"
    )


def _listed(names: list[str], others: list[str]) -> str:
    """The ``names`` that are not among ``others``, in words."""
    more = [f"'{name}'" for name in names if name not in set(others)]
    kind = "class" if len(more) == 1 else "classes"
    return f"the {kind} {', '.join(more[:5])}{', ...' if len(more) > 5 else ''}" if more else ""


def split_of(shards: ShardSet) -> Split | None:
    """Which images of a further test set are used: the test split, or the only one that there is."""
    if len(shards.rows("test")):
        return "test"
    filled = [split for split in SPLITS if len(shards.rows(split))]
    return filled[0] if len(filled) == 1 else None


def load_test(shards: ShardSet, classes: list[str], view: ImageView) -> Images:
    """The images of a further test set; labels are places in ``classes``, in which they are found by name."""
    split = split_of(shards)
    assert split is not None, "opened by open_tests"
    images = load_images(shards, split, view)
    places = np.array([classes.index(name) for name in shards.classes], np.int64)
    return Images(images.images, places[images.labels], images.rows)


def chosen_from(images: Images, max_images: int | None, seed: int) -> Images:
    """A fixed stratified subset of at most ``max_images``."""
    chosen = stratified_subset(images.labels, max_images, seed)
    return Images(images.images[chosen], images.labels[chosen], images.rows[chosen])
