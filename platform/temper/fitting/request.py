"""What `temper fit` is asked for, and the folder that it fills."""

from dataclasses import dataclass
from pathlib import Path

from pydantic import Field, field_validator

from temper.errors import CheckpointError
from temper.records import SweepFolder, Within, write_atomic
from temper.safe_load import read_json
from temper.spec import BallThreat, Norm, Ratio, Spec, check_eps, first_problem


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
    seed: int = Field(default=0, ge=0, lt=2**31)

    @field_validator("images", "source")
    @classmethod
    def _from_anywhere(cls, path: str | None) -> str | None:
        """Absolute, so that the fit can be resumed from another folder."""
        return None if path is None else str(Path(path).resolve())

    def model_post_init(self, _context: object) -> None:
        check_eps(self.norm, self.eps)

    @property
    def threat(self) -> BallThreat:
        return BallThreat(norm=self.norm, eps=self.eps)


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

    def claim(self, request: FitRequest) -> None:
        """Write the request down, or see that this very one was begun here.

        Until something was planned, another one for the same images takes its place.

        Raises:
            CheckpointError: the folder holds something else.
        """
        if self.request.exists():
            before = self.read_request()
            if before != request and (self.plan.exists() or not _same_images(before, request)):
                raise CheckpointError(
                    f"{self.path}: holds another fit (see {self.request.name}); "
                    f"resume it with `temper fit --resume {self.path}`, or start this one with another --out"
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


def _same_images(one: FitRequest, other: FitRequest) -> bool:
    """Whether both make the same shards."""
    names = ("images", "source", "seed", "size")
    return all(getattr(one, name) == getattr(other, name) for name in names)
