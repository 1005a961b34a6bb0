"""What `temper fit` is asked for, and the folder that it fills."""

from dataclasses import dataclass
from pathlib import Path

from pydantic import Field, field_validator

from temper.defaults import MAX_BAD_FRAC
from temper.errors import CheckpointError
from temper.records import Depth, SweepFolder, Within, write_atomic
from temper.safe_load import read_json
from temper.spec import BallThreat, Channels, Norm, Ratio, Spec, check_eps, first_problem


class Reading(Spec):
    """How image files are read and labelled, as `temper shards` takes it."""

    depth: Depth | None = None
    """How images of more than 8 bits are scaled; ``None``: as the set's largest value asks for."""
    max_pixels: int | None = Field(default=None, ge=1)
    max_bad: float = Field(default=MAX_BAD_FRAC, ge=0, le=1)
    """The largest fraction of images that may be unusable."""
    follow_links: bool = False
    labels: str | None = None
    """A table elsewhere than ``metadata.csv``."""
    group: str | None = None
    """A regular expression that finds a file's group in its name."""
    group_near_duplicates: bool = False

    @field_validator("labels")
    @classmethod
    def _from_anywhere(cls, path: str | None) -> str | None:
        """Absolute, so that the fit can be resumed from another folder."""
        return None if path is None else str(Path(path).resolve())

    @property
    def table(self) -> Path | None:
        return None if self.labels is None else Path(self.labels)

    @property
    def of_source(self) -> "Reading":
        """What of it holds for the images of a source task too, which are labelled in their own way."""
        return Reading(max_pixels=self.max_pixels, max_bad=self.max_bad, follow_links=self.follow_links)

    @property
    def options(self) -> dict[str, list[str]]:
        """The same as options of `temper shards`, with their values."""
        bits, window = (None, None) if self.depth is None else (self.depth.bits, self.depth.window)
        values = {
            "--bit-depth": None if bits is None else [str(bits)],
            "--window": None if window is None else [f"{value:.17g}" for value in window],
            "--max-pixels": None if self.max_pixels is None else [str(self.max_pixels)],
            "--max-bad": None if self.max_bad == AS_THEY_ARE.max_bad else [f"{self.max_bad:g}"],
            "--follow-links": [] if self.follow_links else None,
            "--labels": None if self.labels is None else [self.labels],
            "--group": None if self.group is None else [self.group],
            "--group-near-duplicates": [] if self.group_near_duplicates else None,
        }
        return {option: words for option, words in values.items() if words is not None}


AS_THEY_ARE = Reading()


class FitRequest(Spec):
    """One call. ``None`` leaves the choice to measurement."""

    images: str
    """Class folders, or a folder of shards."""
    eps: Ratio = 2 / 255
    norm: Norm = "linf"
    minutes: float = Field(default=20.0, gt=0, le=100_000)
    """From the first look at the images to the page."""
    size: int | None = Field(default=None, ge=8, le=1024)
    """Of the images that the network sees, in pixels."""
    backbone: str | None = None
    weights: str | None = None
    """As ``model.weights`` of a recipe; ``random`` for none."""
    source: str | None = None
    """Class folders or shards of a source task."""
    reading: Reading = AS_THEY_ARE
    """Of ``images``; of ``source`` the limit and the links."""
    seed: int = Field(default=0, ge=0, lt=2**31)

    @field_validator("images", "source")
    @classmethod
    def _from_anywhere(cls, path: str | None) -> str | None:
        """Absolute, so that the fit can be resumed from another folder."""
        return None if path is None else str(Path(path).resolve())

    def model_post_init(self, _context: object) -> None:
        check_eps(self.norm, self.eps)

    def threat(self, channels: Channels) -> BallThreat:
        """What to withstand, in images of these channels."""
        return BallThreat(norm=self.norm, eps=self.eps, channels=channels)


@dataclass(frozen=True)
class FitFolder:
    """The files of one fit."""

    path: Path

    request = Within("fit.json")
    """The call itself: with it, resuming needs nothing but the folder."""
    shards = Within("shards")
    source = Within("source")
    """Shards of the source task."""
    plan = Within("plan.json")
    """What was measured and chosen."""

    @property
    def sweep(self) -> SweepFolder:
        return SweepFolder(self.path / "sweep")

    @property
    def resume_command(self) -> str:
        return f"temper fit --resume {self.path}"

    def claim(self, request: FitRequest) -> None:
        """Write the request down, or see that this very one was begun here.

        Until something was planned, another one for the same images takes its place.

        Raises:
            CheckpointError: the folder holds something else.
        """
        if self.request.exists():
            before = self.read_request()
            is_other = not _same_images(before, request, but_reading=not self.shards.exists())
            if before != request and (self.plan.exists() or is_other):
                raise CheckpointError(
                    f"{self.path}: holds another fit (see {self.request.name}); "
                    f"resume it with `{self.resume_command}`, or start this one with another --out"
                )
        elif self.path.exists() and any(self.path.iterdir()):
            raise CheckpointError(f"{self.path}: already exists; remove it, or choose another --out")
        write_atomic(self.request, request.model_dump_json(indent=2) + "\n")

    def read_request(self) -> FitRequest:
        """What was asked for.

        Raises:
            CheckpointError: no fit was begun here, or its file is damaged.
        """
        if not self.request.exists():
            raise CheckpointError(f"{self.path}: holds no fit ({self.request.name} is needed)")
        try:
            return FitRequest.model_validate(read_json(self.request))
        except (OSError, ValueError) as problem:
            raise CheckpointError(f"{self.request}: cannot be read ({first_problem(problem)})") from None


def _same_images(one: FitRequest, other: FitRequest, *, but_reading: bool) -> bool:
    """Whether both make the same shards."""
    names = ("images", "source", "seed", "size", *(() if but_reading else ("reading",)))
    return all(getattr(one, name) == getattr(other, name) for name in names)
