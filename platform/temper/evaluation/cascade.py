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
from temper.spec import Norm, Threat

TOLERANCE = 1e-5
"""Distance by which float arithmetic may leave the ball; anything farther is not counted."""

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
    members: list[MemberOutcome] = field(default_factory=list)


def run_cascade(
    model: CountedModel,
    images: Tensor,
    labels: Tensor,
    correct: Tensor,
    members: Sequence[Member],
    threat: Threat,
    *,
    seed: int,
    batch_size: int,
    device: torch.device,
    on_progress: OnProgress | None = None,
) -> CascadeOutcome:
    """Attack uint8 ``images`` (N,3,H,W) that are ``correct`` (N,), member after member.

    An attack's own word is no evidence: each returned image is checked against the threat model and
    classified again here.
    """
    outcome = CascadeOutcome(standing=correct.clone())
    for member in members:
        turn = _Turn(model, member, threat, images, labels, outcome.standing, batch_size, device)
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
        standing: Tensor,
        batch_size: int,
        device: torch.device,
    ) -> None:
        self.model, self.member, self.threat = model, member, threat
        self.images, self.labels, self.standing = images, labels, standing
        self.batch_size, self.device = batch_size, device
        self.attacked = standing.clone()
        self.prediction = torch.full_like(labels, -1)
        self.distance = torch.full(labels.shape, torch.nan)
        self.num_rejected = 0
        self.started = time.perf_counter()

    def attack_survivors(self, seed: int, on_progress: OnProgress | None) -> None:
        import foolbox

        fmodel = foolbox.PyTorchModel(self.model, bounds=(0, 1), device=self.device)
        survivors = self.standing.nonzero().flatten()
        for start in range(0, len(survivors), self.batch_size):
            chosen = survivors[start : start + self.batch_size]
            clean = self.images[chosen].to(self.device).float() / 255
            labels = self.labels[chosen].to(self.device)
            with torch.random.fork_rng(enabled=True):
                torch.manual_seed(derive_seed(seed, start))
                perturbed = self.member.run(fmodel, clean, labels, self.threat.norm, self.threat.eps)
            self._judge(chosen, clean, perturbed.detach(), labels)
            if on_progress is not None:
                done = min(start + self.batch_size, len(survivors))
                on_progress(self.member.name, done, len(survivors), float(self.standing.float().mean()))

    def _judge(self, chosen: Tensor, clean: Tensor, perturbed: Tensor, labels: Tensor) -> None:
        """Count only perturbations that obey the threat model and that we see fool the model."""
        valid = is_valid(clean, perturbed, self.threat)
        perturbed = torch.where(valid.view(-1, 1, 1, 1), perturbed.clamp(0, 1), clean)
        with torch.no_grad():
            prediction = self.model(perturbed).argmax(1)
        fooled = (valid & (prediction != labels)).cpu()
        self.num_rejected += int((~valid).sum())
        self.standing[chosen[fooled]] = False
        self.prediction[chosen[fooled]] = prediction.cpu()[fooled]
        self.distance[chosen[fooled]] = distances(clean, perturbed, self.threat.norm).cpu()[fooled]

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
    return finite & in_bounds & (distances(clean, perturbed, threat.norm) <= threat.eps + TOLERANCE)


def distances(clean: Tensor, perturbed: Tensor, norm: Norm) -> Tensor:
    """(B,) distances in pixel units of [0,1]."""
    order = float("inf") if norm == "linf" else 2
    lengths: Tensor = torch.linalg.vector_norm((perturbed - clean).flatten(1), order, dim=1)
    return lengths
