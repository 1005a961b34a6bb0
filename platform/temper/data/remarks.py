"""What is to be said of the images of a set, once they are read."""

import logging
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from temper.data.encode import Encoded
from temper.data.folders import ImageFile
from temper.data.manifest import BadImage, Origin

logger = logging.getLogger(__name__)

NUM_NAMED = 10
"""Classes of a warning."""
MIN_FILES = 5
"""Of a class, and of the others, below which nothing is said of how they differ."""
MIN_DIFFERENCE = 0.5
"""Of the shares in a class and in the others: such a property of files tells the class by itself."""
DARK = 32
"""Grey level that no image of a set reaches where something went wrong as it was made."""


@dataclass(frozen=True)
class Remarks:
    """What is to be said of some files, and of classes that differ in more than what they show."""

    skipped: list[BadImage] = field(default_factory=list)
    partly: list[BadImage] = field(default_factory=list)
    origins: list[Origin] = field(default_factory=list)
    windows: dict[int, Counter[tuple[float, float] | None]] = field(
        default_factory=lambda: defaultdict(Counter)
    )
    """Of each class, how many DICOM files have each window, and how many have none."""
    traits: dict[str, Counter[tuple[str, int]]] = field(default_factory=lambda: defaultdict(Counter))
    """Property of files -> how many files of each of its values and of each class."""

    def add(self, file: ImageFile, image: Encoded) -> None:
        path = file.relative
        if image.has_window is not None:
            self.windows[file.label][image.window if image.has_window else None] += 1
        if image.note is not None:
            self.partly.append(BadImage(path=path, reason=image.note))
        if image.patient or image.study:
            self.origins.append(Origin(path=path, patient=image.patient, study=image.study))
        for name, value in image.traits.items():
            self.traits[name][value, file.label] += 1

    def warn(self, source: Path, classes: Sequence[str], thumbnails: Sequence[bytes]) -> None:
        """Say by what, other than what it shows, an image tells its class, and what no image shows."""
        self._warn_of_windows(source, classes)
        for name, counts in self.traits.items():
            if told := ", ".join(_telling(counts, classes)):
                logger.warning(
                    "%s: the %s of a file tells its class: %s; a model may learn this instead of what is "
                    "shown: make the files of all classes alike",
                    *(source, name, told),
                )
        depths = Counter(value for value, _ in self.traits["depth"].elements())
        if len(depths) > 1:
            counted = " and ".join(f"{count} images {value}" for value, count in sorted(depths.items()))
            logger.warning(
                "%s: %s: only the deep ones are scaled; see whether both kinds look alike",
                *(source, counted),
            )
        pixels = np.frombuffer(b"".join(thumbnails), np.uint8).reshape(len(thumbnails), -1)
        if len(pixels) and pixels.max() < DARK:
            logger.warning(
                "%s: no image is brighter than %d of 255, so that all are nearly black: see how they were "
                "saved (0..1 or labels instead of grey levels?)",
                *(source, pixels.max()),
            )

    def _warn_of_windows(self, source: Path, classes: Sequence[str]) -> None:
        """Where how a DICOM file is scaled may tell its class."""
        said = self._some_windows() or self._other_windows()
        if said is None:
            return
        about, counts = said
        listed = [f"'{classes[label]}' {count}" for label, count in sorted(counts.items())]
        more = [f"{len(listed) - NUM_NAMED} more classes"] if len(listed) > NUM_NAMED else []
        logger.warning(
            "%s: %s: %s; a model may tell classes apart by it: --window LOW HIGH scales all alike",
            *(source, about, ", ".join([*listed[:NUM_NAMED], *more])),
        )

    def _some_windows(self) -> tuple[str, dict[int, str]] | None:
        """Some files have a window and others none: what is said of them, and of each class."""
        without = {label: own[None] for label, own in self.windows.items()}
        having = {label: own.total() - own[None] for label, own in self.windows.items()}
        if not (any(without.values()) and any(having.values())):
            return None
        counts = {label: f"{having[label]} with and {without[label]} without" for label in without}
        return (
            "only some DICOM files have a window, and those without are scaled by their stored bits",
            counts,
        )

    def _other_windows(self) -> tuple[str, dict[int, str]] | None:
        """No window is one of every class, and they are not all different: the same."""
        common = {label: own.most_common(1)[0] for label, own in self.windows.items()}
        is_typical = any(1 < count >= self.windows[label].total() / 2 for label, (_, count) in common.items())
        if len(common) < 2 or set.intersection(*map(set, self.windows.values())) or not is_typical:
            return None
        counts = {
            label: f"{window[0]:g} to {window[1]:g} in {count} of {self.windows[label].total()}"
            for label, (window, count) in common.items()
            if window is not None
        }
        return "no window is shared by the DICOM files of all classes; the most common ones", counts


def _telling(counts: Counter[tuple[str, int]], classes: Sequence[str]) -> Iterator[str]:
    """Values of a property that most files of a class have and few of the others, the clearest first."""
    of_class, of_value = Counter[int](), Counter[str]()
    for (value, label), count in counts.items():
        of_class[label] += count
        of_value[value] += count
    found = []
    for (value, label), count in counts.items():
        others = of_class.total() - of_class[label]
        if min(of_class[label], others) >= MIN_FILES:
            inside, outside = count / of_class[label], (of_value[value] - count) / others
            found.append((outside - inside, classes[label], value, inside, outside))
    for difference, name, value, inside, outside in sorted(found)[:NUM_NAMED]:
        if -difference > MIN_DIFFERENCE:
            yield f"{inside:.0%} of '{name}' are {value}, {outside:.0%} of the others"
