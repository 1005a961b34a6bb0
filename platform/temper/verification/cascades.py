"""The outcomes of each threat model, walked through member by member."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from temper.records import AttackRecord
from temper.spec import Threat
from temper.verification.evidence import Evidence

SLACK = 2e-5
"""How far float arithmetic may have left the ball (in norms that add up: times eps, if that is above 1)."""
PARTS = ("attacked", "fooled", "prediction", "distance")


@dataclass(frozen=True)
class Cascade:
    """Columns of one threat model; all arrays (N,)."""

    evidence: Evidence
    threat: Threat
    prefix: str
    """Of its columns; empty for the main threat model."""
    members: list[str]

    @property
    def standing(self) -> np.ndarray:
        """Images that count as robust, bool."""
        return self.evidence.columns[f"{self.prefix}robust"]

    def column(self, member: str, part: str) -> np.ndarray:
        return self.evidence.columns[f"{self.prefix}{member}/{part}"]

    def names(self) -> set[str]:
        """Of its columns."""
        named = {f"{self.prefix}{member}/{part}" for member in self.members for part in PARTS}
        return {*named, f"{self.prefix}robust"}

    def numbers(self) -> Iterator[tuple[int, int, float]]:
        """Of each member: images attacked, images fooled, robust accuracy afterwards."""
        standing = self.evidence.columns["correct"].copy()
        for member in self.members:
            attacked, fooled = self.column(member, "attacked"), self.column(member, "fooled")
            standing &= ~fooled
            yield int(attacked.sum()), int(fooled.sum()), float(standing.mean())

    def predictions(self) -> np.ndarray:
        """(N,) int64: what the model says under attack; -1 where its answer was not finite."""
        found = self.evidence.columns["prediction"].copy()
        for member in self.members:
            found = np.where(self.column(member, "fooled"), self.column(member, "prediction"), found)
        return found

    def problems(self) -> Iterator[str]:
        """Where its columns contradict each other."""
        columns = self.evidence.columns
        standing, tried = columns["correct"].copy(), np.zeros(self.evidence.num_images, bool)
        for member in self.members:
            where = f"{self.prefix}{member}"
            attacked, fooled = self.column(member, "attacked"), self.column(member, "fooled")
            if (attacked & ~standing).any():
                yield f"{where} attacked images that had already fallen"
            if (fooled & ~attacked).any():
                yield f"{where} fooled images that it did not attack"
            yield from self._contradictions(member, fooled)
            standing &= ~fooled
            tried |= attacked
        if not np.array_equal(standing, self.standing):
            count = int((standing != self.standing).sum())
            yield f"'{self.prefix}robust' is not what the members left standing ({count} images)"
        if (self.standing & ~tried).any():
            yield f"'{self.prefix}robust' counts images that nothing attacked"

    def _contradictions(self, member: str, fooled: np.ndarray) -> Iterator[str]:
        where, threat = f"{self.prefix}{member}", self.threat
        prediction, distance = self.column(member, "prediction"), self.column(member, "distance")
        if (prediction == self.evidence.columns["label"])[fooled].any():
            yield f"{where} fooled images whose prediction is right"
        if (prediction[~fooled] != -1).any() or not np.isnan(distance[~fooled]).all():
            yield f"{where} has predictions or distances of images that it did not fool"
        limit = threat.eps + SLACK * max(1.0, threat.eps)
        if threat.norm != "semantic" and not (distance[fooled] <= limit).all():
            yield f"{where} left the ball of {threat.label}"


def without_gaps(prediction: np.ndarray, labels: np.ndarray, num_classes: int) -> np.ndarray:
    """``prediction`` (N,) with a wrong class where it is -1."""
    return np.where(prediction == -1, (labels + 1) % num_classes, prediction)


def main_cascade(evidence: Evidence) -> Cascade:
    """Of the headline number."""
    record = evidence.record
    return Cascade(evidence, record.threat, "", [attack.name for attack in record.attacks])


def other_cascades(evidence: Evidence) -> list[tuple[Cascade, list[AttackRecord]]]:
    """Of other threat models, with what the record says of their members."""
    return [
        (
            Cascade(evidence, other.threat, f"{other.threat.label}/", [one.name for one in other.attacks]),
            other.attacks,
        )
        for other in evidence.record.others
    ]


def curve_cascades(evidence: Evidence) -> list[Cascade]:
    """Of further eps in the main norm; the record has their robust accuracies alone."""
    record, found = evidence.record, []
    for point in record.curve:
        threat = record.threat.model_copy(update={"eps": point.eps})
        if threat != record.threat:
            prefix = f"{threat.label}/"
            fooled = [
                name for name in evidence.columns if name.startswith(prefix) and name.endswith("/fooled")
            ]
            members = [name.removeprefix(prefix).removesuffix("/fooled") for name in fooled]
            found.append(Cascade(evidence, threat, prefix, members))
    return found
