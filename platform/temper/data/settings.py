"""The section ``data`` of a recipe."""

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from temper.data.folds import FoldSpec
from temper.data.image_view import Fit, ImageView
from temper.spec import Spec
from temper.storage import Place

TEST_NAME = r"^[A-Za-z0-9][A-Za-z0-9_-]{0,49}$"


def _told_apart(tests: dict[str, Place]) -> dict[str, Place]:
    """Refuse names that would share a file, or that ``--set`` takes for something else."""
    if "kind" in tests:
        raise ValueError(
            "a further test set cannot be called 'kind': in recipes that means a choice; rename it"
        )
    seen: dict[str, str] = {}
    for name in tests:
        if (other := seen.setdefault(name.casefold(), name)) != name:
            raise ValueError(f"'{other}' and '{name}' would be the same file on some disks; rename one")
    return tests


FurtherTests = Annotated[dict[Annotated[str, Field(pattern=TEST_NAME)], Place], AfterValidator(_told_apart)]


class AugmentSpec(Spec):
    """The augmentation of the reference workflow; each image draws its own parameters."""

    rotation_degrees: float = Field(default=20.0, ge=0, le=180)
    """Uniform in plus and minus this."""
    shift_frac: float = Field(default=0.2, ge=0, le=1)
    """Uniform in plus and minus this share of the side, in each direction."""
    horizontal_flip: bool = True
    zoom_frac: float = Field(default=0.0, ge=0, lt=1)
    """Seen at a scale uniform in 1 plus and minus this."""
    contrast_frac: float = Field(default=0.0, ge=0, lt=1)
    """The distance from the image's mean is multiplied by 1 plus and minus this."""
    brightness: float = Field(default=0.0, ge=0, lt=1)
    """Added to every value: uniform in plus and minus this, of the range [0,1]."""
    gamma: float = Field(default=0.0, ge=0, lt=2)
    """Values are raised to the power exp(u), u uniform in plus and minus this: films and lamps differ so."""


class MixSpec(Spec):
    """Mixing of the target images of a batch with each other, by torchvision.

    mixup: Zhang et al. 2017, arXiv:1710.09412; cutmix: Yun et al. 2019, arXiv:1905.04899; ``either`` draws
    one of them for each batch. ``*_beta`` are both parameters of the Beta distribution of the shares.
    """

    kind: Literal["mixup", "cutmix", "either"] = "either"
    mixup_beta: float = Field(default=0.2, gt=0, le=100)
    cutmix_beta: float = Field(default=1.0, gt=0, le=100)


class DataSpec(Spec):
    """The images of a run: shards of the target task and, if there is one, of the source task."""

    target: Place
    source: Place | None = None
    image_size: int = Field(ge=8, le=1024)
    """Height and width that the model sees, in pixels."""
    fit: Fit = "pad"
    batch_size: int = Field(default=64, ge=2)
    """Batch of the whole run: its workers share it, at least two images each."""
    source_batch_size: int | None = Field(default=None, ge=2)
    """Counted alike; ``null``: as ``batch_size``."""
    resident: bool | Literal["auto"] = "auto"
    """Decode once and keep in memory. ``auto``: where both training splits fit in 2 GiB."""
    augment: AugmentSpec | None = None
    mixing: MixSpec | None = None
    """Of target images."""
    sampling: Literal["uniform", "balanced"] = "uniform"
    """``balanced``: every class of the target equally often in each epoch; needs resident images."""
    shots_per_class: int | None = Field(default=None, ge=1)
    """Few-shot: this many training images of each target class, drawn by the recipe's seed."""
    fold: FoldSpec | None = None
    """The target's splits are those of one fold of a cross-validation; ``null``: those of the manifest."""
    tests: FurtherTests = Field(default_factory=dict)
    """Further test sets, such as another site's: name -> shards of the same classes. After the target's test
    split, their test splits are attacked alike.
    """

    @property
    def view(self) -> ImageView:
        """What the model sees of an image."""
        return ImageView(self.image_size, self.fit)
