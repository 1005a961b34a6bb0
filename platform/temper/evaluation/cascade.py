"""The cascade: attacks in turn on the images that still stand; per image, the worst case counts."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from temper.evaluation.members import Member
from temper.evaluation.passes import CountedModel
from temper.records import AttackRecord
from temper.seeds import derive_seed
from temper.spec import Geometry, Threat

TOLERANCE = 1e-5
"""Distance by which float arithmetic may leave the ball (in L1, a sum over all pixels: times eps, if that
is above 1); anything farther is not counted."""

OnProgress = Callable[[str, int, int, float], None]
"""Called with the member, images done, images to do, and the robust accuracy so far."""


@dataclass
class MemberOutcome:
    """What one member did to each of the N images."""

    record: AttackRecord
    attacked: Tensor
    """(N,) bool: the image still stood when the member's turn came."""
    fooled: Tensor
    """(N,) bool: a valid perturbation changed the prediction."""
    prediction: Tensor
    """(N,) int64: the adversarial prediction where fooled, else -1."""
    distance: Tensor
    """(N,) float32: the perturbation's norm where fooled, else NaN."""


@dataclass
class CascadeOutcome:
    standing: Tensor
    """(N,) bool: classified correctly under everything that was tried."""
    worst_logits: Tensor
    """(N,C): for the perturbation that fooled the model, or else the valid one with the smallest margin;
    clean logits where the image was misclassified to begin with."""
    members: list[MemberOutcome] = field(default_factory=list)


def run_cascade(
    model: CountedModel,
    images: Tensor,
    labels: Tensor,
    logits: Tensor,
    members: Sequence[Member],
    threat: Threat,
    *,
    seed: int,
    batch_size: int,
    device: torch.device,
    on_progress: OnProgress | None = None,
) -> CascadeOutcome:
    """Attack the uint8 ``images`` (N,3,H,W) whose clean ``logits`` (N,C) are right, member after member.

    ``images``, ``labels`` (N,) and ``logits`` are on the CPU. An attack's own word is no
    evidence: each returned image is checked against the threat model and classified again here.
    """
    outcome = CascadeOutcome(standing=logits.argmax(1) == labels, worst_logits=logits.clone())
    for member in members:
        turn = _Turn(model, member, threat, images, labels, outcome, batch_size, device)
        for restart in range(member.restarts):
            turn.attack_survivors(derive_seed(seed, "evaluate", member.name, restart), on_progress)
        outcome.members.append(turn.outcome())
    return outcome


class _Turn:
    """One member's turn in the cascade."""

    def __init__(
        self,
        model: CountedModel,
        member: Member,
        threat: Threat,
        images: Tensor,
        labels: Tensor,
        cascade: CascadeOutcome,
        batch_size: int,
        device: torch.device,
    ) -> None:
        self.model, self.member, self.threat = model, member, threat
        self.images, self.labels = images, labels
        self.standing, self.worst_logits = cascade.standing, cascade.worst_logits
        self.batch_size, self.device = batch_size, device
        self.attacked = cascade.standing.clone()
        self.prediction = torch.full_like(labels, -1)
        self.distance = torch.full(labels.shape, torch.nan)
        self.num_rejected = 0
        self.started = time.perf_counter()

    def attack_survivors(self, seed: int, on_progress: OnProgress | None) -> None:
        survivors = self.standing.nonzero().flatten()
        for start in range(0, len(survivors), self.batch_size):
            chosen = survivors[start : start + self.batch_size]
            clean = self.images[chosen].to(self.device).float() / 255
            labels = self.labels[chosen].to(self.device)
            perturbed = self.member.run(self.model, clean, labels, self.threat, derive_seed(seed, start))
            self._judge(chosen, clean, perturbed.detach())
            if on_progress is not None:
                done = min(start + self.batch_size, len(survivors))
                on_progress(self.member.name, done, len(survivors), float(self.standing.float().mean()))

    def _judge(self, chosen: Tensor, clean: Tensor, perturbed: Tensor) -> None:
        """Count only perturbations that obey the threat model and that we see fool the model."""
        valid = is_valid(clean, perturbed, self.threat)
        perturbed = torch.where(valid.view(-1, 1, 1, 1), perturbed.clamp(0, 1), clean)
        with torch.no_grad():
            logits = self.model(perturbed).cpu()
        lengths = distances(clean, perturbed, self.threat.norm).cpu()
        valid, labels, prediction = valid.cpu(), self.labels[chosen], logits.argmax(1)
        fooled = valid & (prediction != labels)
        self.num_rejected += int((~valid).sum())
        self.standing[chosen[fooled]] = False
        self.prediction[chosen[fooled]] = prediction[fooled]
        self.distance[chosen[fooled]] = lengths[fooled]
        worse = fooled | (valid & (margins(logits, labels) < margins(self.worst_logits[chosen], labels)))
        self.worst_logits[chosen[worse]] = logits[worse]

    def outcome(self) -> MemberOutcome:
        fooled = self.attacked & ~self.standing
        record = AttackRecord(
            name=self.member.name,
            settings=self.member.model_dump(mode="json"),
            num_attacked=int(self.attacked.sum()),
            num_fooled=int(fooled.sum()),
            robust_acc_after=float(self.standing.double().mean()),
            num_rejected=self.num_rejected,
            seconds=time.perf_counter() - self.started,
        )
        return MemberOutcome(record, self.attacked, fooled, self.prediction, self.distance)


def is_valid(clean: Tensor, perturbed: Tensor, threat: Threat) -> Tensor:
    """(B,) bool: finite, in [0,1] and within eps of the clean image, up to float error."""
    flat = perturbed.flatten(1)
    finite = flat.isfinite().all(1)
    in_bounds = ((flat >= -TOLERANCE) & (flat <= 1 + TOLERANCE)).all(1)
    slack = TOLERANCE * max(1.0, threat.eps) if threat.norm == "l1" else TOLERANCE
    return finite & in_bounds & (distances(clean, perturbed, threat.norm) <= threat.eps + slack)


def distances(clean: Tensor, perturbed: Tensor, norm: Geometry) -> Tensor:
    """(B,) distances in pixel units of [0,1]."""
    order = {"linf": float("inf"), "l2": 2, "l1": 1}[norm]
    lengths: Tensor = torch.linalg.vector_norm((perturbed - clean).flatten(1), order, dim=1)
    return lengths


def margins(logits: Tensor, labels: Tensor) -> Tensor:
    """(B,) logit of the true class minus the best other one; negative where misclassified."""
    true = logits.gather(1, labels[:, None]).squeeze(1)
    return true - logits.scatter(1, labels[:, None], -torch.inf).amax(1)
