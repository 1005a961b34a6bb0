"""Outcomes on a part of the images, and joining the parts."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import torch
from torch import Tensor

from temper.attacks import in_colour
from temper.evaluation.threats import margins
from temper.records import AttackRecord, ChunkSource, ModelSource
from temper.spec import Threat

CASCADE_TENSORS = ("standing", "worst_logits", "kept", "adversarial", "first", "first_image")
MEMBER_TENSORS = ("attacked", "fooled", "prediction", "distance")


@dataclass
class MemberOutcome:
    """The outcome of one member on each of the N images."""

    name: str
    settings: dict[str, Any]
    sees: str
    attacked: Tensor
    """(N,) bool: the image still stood when the member's turn came."""
    fooled: Tensor
    """(N,) bool: a valid perturbation changed the prediction."""
    prediction: Tensor
    """(N,) int64: the adversarial prediction where fooled, else -1 (also where the answer was not finite)."""
    distance: Tensor
    """(N,) float32: the perturbation's size where fooled, else NaN."""
    num_rejected: int = 0
    """Returned images that broke the threat model."""
    seconds: float = 0.0


@dataclass
class CascadeOutcome:
    """The outcome of a suite within one threat model."""

    threat: Threat
    suite: str
    standing: Tensor
    """(N,) bool: classified correctly under everything that was tried."""
    worst_logits: Tensor
    """(N,C): for the perturbation that fooled the model, or else the valid one with the smallest margin;
    clean logits where the image was misclassified to begin with."""
    kept: Tensor
    """(N,) bool: images whose adversarial example is kept."""
    adversarial: Tensor
    """(K,3,H,W) float32, of the ``kept`` images alone; zeros where none was found."""
    first: Tensor
    """(N,) bool: of each chunk, the first image that fell, in case none of the ``kept`` does."""
    first_image: Tensor
    """(F,3,H,W) float32: the adversarial examples of the ``first``."""
    members: list[MemberOutcome] = field(default_factory=list)

    @classmethod
    def begin(
        cls, threat: Threat, suite: str, clean: "CleanOutcome", images: Tensor, kept: Tensor
    ) -> "CascadeOutcome":
        """Before the first attack: what is classified correctly stands."""
        return cls(
            threat,
            suite,
            standing=clean.correct.clone(),
            worst_logits=clean.logits.clone(),
            kept=kept,
            adversarial=torch.zeros(int(kept.sum()), 3, *images.shape[2:]),
            first=torch.zeros_like(kept),
            first_image=torch.zeros(0, 3, *images.shape[2:]),
        )

    def carry(self, smaller: "CascadeOutcome") -> None:
        """What fell within a smaller ball of the same norm has fallen in this one."""
        fallen = self.standing & ~smaller.standing
        prediction, distance = smaller.prediction, smaller.distance
        self.members.append(
            MemberOutcome(
                name="carried",
                settings={"from": smaller.threat.label},
                sees="carried",
                attacked=self.standing.clone(),
                fooled=fallen,
                prediction=torch.where(fallen, prediction, -1),
                distance=torch.where(fallen, distance, torch.nan),
            )
        )
        self.standing = self.standing & smaller.standing
        self.worst_logits = smaller.worst_logits.clone()
        self.adversarial = smaller.adversarial.clone()
        self.first, self.first_image = smaller.first.clone(), smaller.first_image.clone()

    def fell(self, chosen: Tensor, fooled: Tensor, perturbed: Tensor) -> None:
        """Of the images ``chosen`` (B,), those in ``fooled`` (B,) fell to ``perturbed`` (B,3,H,W)."""
        self.standing[chosen[fooled]] = False
        places, kept = self.kept.long().cumsum(0) - 1, fooled & self.kept[chosen]
        # Few of them leave the device, most often none.
        if kept.any():
            self.adversarial[places[chosen[kept]]] = perturbed[kept.to(perturbed.device)].cpu()
        if fooled.any() and not self.first.any():
            place = int(fooled.nonzero()[0])
            self.first[chosen[place]] = True
            self.first_image = in_colour(perturbed[place : place + 1]).cpu()

    def adopt(self, other: "CascadeOutcome", fallen: Tensor) -> None:
        """The adversarial examples that ``other`` has of the images ``fallen`` (N,) bool."""
        self.adversarial[fallen[self.kept]] = other.adversarial[fallen[self.kept]]
        if not self.first.any() and (other.first & fallen).any():
            self.first, self.first_image = other.first.clone(), other.first_image.clone()

    def see(
        self, chosen: Tensor, fooled: Tensor, valid: Tensor, logits: Tensor, closeness: Tensor, labels: Tensor
    ) -> None:
        """Keep the logits of what fooled the model or, while an image stands, of what came closest."""
        standing = self.standing[chosen]
        closer = standing & valid & (closeness < margins(self.worst_logits[chosen], labels))
        worse = fooled | closer
        self.worst_logits[chosen[worse]] = logits[worse]

    @property
    def prediction(self) -> Tensor:
        """(N,) the adversarial prediction where an attack fooled the model, else -1."""
        found = torch.full(self.standing.shape, -1, dtype=torch.int64)
        for member in self.members:
            found = torch.where(member.fooled, member.prediction, found)
        return found

    @property
    def distance(self) -> Tensor:
        """(N,) size of the perturbation where an attack fooled the model, else NaN."""
        found = torch.full(self.standing.shape, torch.nan)
        for member in self.members:
            found = torch.where(member.fooled, member.distance, found)
        return found

    def records(self) -> list[AttackRecord]:
        """One record for each member, in the order of the cascade."""
        standing = self.members[0].attacked.clone() if self.members else self.standing
        records = []
        for member in self.members:
            standing = standing & ~member.fooled
            records.append(
                AttackRecord(
                    name=member.name,
                    settings=member.settings,
                    num_attacked=int(member.attacked.sum()),
                    num_fooled=int(member.fooled.sum()),
                    robust_acc_after=float(standing.double().mean()),
                    num_rejected=member.num_rejected,
                    seconds=member.seconds,
                )
            )
        return records


@dataclass
class CleanOutcome:
    """The model's answers to the clean images."""

    labels: Tensor
    """(N,) int64."""
    logits: Tensor
    """(N,C); where the answer was not finite, those of a wrong one."""
    finite: Tensor
    """(N,) bool."""

    @property
    def prediction(self) -> Tensor:
        """(N,) int64, -1 where the answer was not finite."""
        return torch.where(self.finite, self.logits.argmax(1), -1)

    @property
    def correct(self) -> Tensor:
        """(N,) bool."""
        return self.prediction == self.labels

    @property
    def confidence(self) -> Tensor:
        """(N,) float64: softmax of the prediction; 0 where the answer was not finite."""
        return torch.where(self.finite, self.logits.double().softmax(1).amax(1), 0.0)


def wrong_unless(finite: Tensor, logits: Tensor, labels: Tensor) -> Tensor:
    """``logits`` (B,C) with a wrong answer in each row that was not ``finite`` (B,)."""
    wrong = torch.nn.functional.one_hot((labels + 1) % logits.shape[1], logits.shape[1])
    return torch.where(finite[:, None], logits, wrong.to(logits.dtype))


@dataclass
class PassCounts:
    """Images through the model."""

    num_forward: int = 0
    num_backward: int = 0
    num_not_finite: int = 0
    seconds: float = 0.0


@dataclass
class ChunkOutcome:
    """Everything that was found on some images: clean answers, and a cascade for each threat model."""

    clean: CleanOutcome
    cascades: list[CascadeOutcome]
    passes: PassCounts
    corrupted: dict[str, Tensor] = field(default_factory=dict)
    """Group -> (N, kinds x 5) bool: classified correctly under each kind and severity."""
    minimum_norms: Tensor | None = None
    """(N,) distance of the nearest point found that fools the model; 0 where wrong anyway, inf where none."""
    sources: list[ChunkSource] = field(default_factory=list)
    """Of each chunk in here; empty where nobody asked."""

    def made_by(self, source: ModelSource) -> "ChunkOutcome":
        """The same chunk, with the model that it is of."""
        return replace(self, sources=[ChunkSource(**source.model_dump(), num_images=len(self.clean.labels))])


def join(parts: Sequence[ChunkOutcome]) -> ChunkOutcome:
    """Join the parts in order, as if they had been one."""
    clean = _cat([part.clean for part in parts], "labels", "logits", "finite")
    cascades = []
    for same in zip(*(part.cascades for part in parts), strict=True):
        joined = _cat(same, *CASCADE_TENSORS)
        members = zip(*(cascade.members for cascade in same), strict=True)
        cascades.append(replace(joined, members=[_join_members(turns) for turns in members]))
    names = ("num_forward", "num_backward", "num_not_finite", "seconds")
    passes = PassCounts(*(sum(getattr(part.passes, name) for part in parts) for name in names))
    corrupted = {group: torch.cat([part.corrupted[group] for part in parts]) for group in parts[0].corrupted}
    norms = [part.minimum_norms for part in parts if part.minimum_norms is not None]
    sources = [source for part in parts for source in part.sources]
    return ChunkOutcome(clean, cascades, passes, corrupted, torch.cat(norms) if norms else None, sources)


def _join_members(turns: Sequence[MemberOutcome]) -> MemberOutcome:
    joined = _cat(turns, *MEMBER_TENSORS)
    joined.num_rejected = sum(turn.num_rejected for turn in turns)
    joined.seconds = sum(turn.seconds for turn in turns)
    return joined


OutcomeT = TypeVar("OutcomeT", CleanOutcome, CascadeOutcome, MemberOutcome)


def _cat(parts: Sequence[OutcomeT], *names: str) -> OutcomeT:
    """The first of ``parts`` with the tensors of that ``names`` of all of them."""
    together: dict[str, Any] = {name: torch.cat([getattr(part, name) for part in parts]) for name in names}
    return replace(parts[0], **together)
