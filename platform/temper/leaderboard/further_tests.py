"""Further test sets as columns of a board."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from temper.leaderboard.entries import Entry
from temper.records import FurtherTestRecord


@dataclass(frozen=True)
class FurtherColumn:
    """A further test set on which some model of a board was evaluated."""

    label: str
    """Its name, and its fingerprint where models call different images so."""
    key: tuple[str, str, int]

    def of(self, entry: Entry) -> FurtherTestRecord | None:
        """What ``entry`` has on it."""
        return next((one for one in entry.tests if _key(one) == self.key), None)


def further_columns(entries: Iterable[Entry]) -> list[FurtherColumn]:
    """The further test sets of ``entries``, by name."""
    keys = sorted({_key(one) for entry in entries for one in entry.tests})
    times = Counter(name for name, _, _ in keys)
    return [
        FurtherColumn(
            name if times[name] == 1 else f"{name} ({fingerprint[:6]}, {num_images} images)",
            (name, fingerprint, num_images),
        )
        for name, fingerprint, num_images in keys
    ]


def _key(one: FurtherTestRecord) -> tuple[str, str, int]:
    return one.name, one.fingerprint, one.num_images
