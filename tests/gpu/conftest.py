"""What only a GPU can show: `make test-gpu` where there is one; elsewhere these tests are skipped.

Nothing here needs Ray. The images are the digits that come with scikit-learn.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits

from temper import host
from temper.batches import ResidentBatches
from temper.data import Images
from temper.recipe import Recipe
from temper.training import TrainData

CLASSES = [str(digit) for digit in range(10)]
SIZE, TRAINED, IN_ALL = 32, 512, 768
"""Pixels of a side, images to train on, and images with those to validate on."""


@pytest.fixture(autouse=True)
def cuda() -> Iterator[torch.device]:
    """The GPU, set up as temper's processes set it up."""
    if not torch.cuda.is_available():
        pytest.skip("needs a GPU")
    host.use_gpu()
    yield torch.device("cuda", torch.cuda.current_device())
    torch.cuda.set_sync_debug_mode("default")


@pytest.fixture(scope="session")
def images() -> Images:
    """All digits, grey, scaled up, with some noise: flat areas have no gradient."""
    bunch = load_digits()
    pixels = torch.from_numpy(bunch.images[:IN_ALL] / 16).float()[:, None].repeat(1, 3, 1, 1)
    pixels = F.interpolate(pixels, (SIZE, SIZE), mode="bilinear")
    pixels += 0.1 * torch.randn(pixels.shape, generator=torch.Generator().manual_seed(0))
    values = (pixels.clamp(0, 1) * 255).round().to(torch.uint8).numpy()
    return Images(values, bunch.target[:IN_ALL], torch.arange(IN_ALL).numpy())


@pytest.fixture(scope="session")
def feed_of(images: Images) -> Callable[[Recipe], TrainData]:
    """What the loop reads for a recipe."""

    def build(recipe: Recipe) -> TrainData:
        train, val = (
            Images(images.images[part], images.labels[part], images.rows[part])
            for part in (slice(TRAINED), slice(TRAINED, None))
        )
        batches = ResidentBatches(train, batch_size=recipe.data.batch_size, seed=recipe.seed)
        return TrainData({"target": CLASSES}, {"target": "digits"}, [1] * 10, batches, None, {"target": val})

    return build


@pytest.fixture(scope="session")
def recipe_of() -> Callable[..., Recipe]:
    """A short run under PGD, with changes of its parts."""

    def build(**changes: Mapping[str, Any]) -> Recipe:
        parts: dict[str, Any] = {
            "data": {"target": "nowhere", "image_size": SIZE, "batch_size": 128},
            "model": {"backbone": "resnet8"},
            "objective": {"alpha": 0, "adversary": {"kind": "pgd", "eps": 8 / 255, "steps": 3}},
            "validation": {"steps": 2, "max_images": 64},
        }
        parts = parts | {name: {**parts.get(name, {}), **change} for name, change in changes.items()}
        return Recipe.model_validate(
            {"name": "gpu", "epochs": 2, "threat": {"norm": "linf", "eps": 8 / 255}, **parts}
        )

    return build
