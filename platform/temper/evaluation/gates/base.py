"""What the gates examine, how they report, and when a finding blocks."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from temper.attacks import Member
from temper.batches import as_floats
from temper.evaluation.cascade import Batching, LabelledImages, run_cascade
from temper.evaluation.chunk_outcome import CascadeOutcome, ChunkOutcome, MemberOutcome
from temper.evaluation.counted_model import CountedModel, HeldModel
from temper.evaluation.fresh import Fresh
from temper.evaluation.gates.attackers import ball_norm
from temper.evaluation.suite import Suite
from temper.records import GateRecord
from temper.seeds import derive_seed
from temper.spec import TrainedNorm
from temper.statistics import wilson

NUM_CHECKED = (32, 64)
"""Images that a gate attacks further: at most 64, and as few as 32 where more would cost too large a part of
what the suite itself did."""

NUM_LUCKY = 1
"""Images that may fall without blocking, however few were checked."""

MAX_MISSED = 0.005
"""Robust accuracy that a suite may miss: 0.5 points, the distance to AutoAttack (Croce and Hein 2020,
arXiv:2003.01690) that we ask of it. A gate blocks when the 95 % interval of what was missed lies above. More
steps may find as much as is known, and said, of a short suite."""


@dataclass
class Scene:
    """The model, the images, and what the suite found on them within the main threat model."""

    held: HeldModel
    data: LabelledImages
    found: ChunkOutcome
    main: CascadeOutcome
    suite: Suite
    batching: Batching
    seed: int
    relatives: Mapping[str, Callable[[Tensor], Tensor]]
    fresh: Fresh | None = None

    @property
    def norm(self) -> TrainedNorm:
        """Of the main threat model, which must be a ball or a patch."""
        return "patch" if self.main.threat.norm == "patch" else ball_norm(self.main.threat)

    @property
    def stands(self) -> bool:
        """Whether a number may be too high by more than ``MAX_MISSED``, in any threat model."""
        if self.found.minimum_norms is not None:
            return True
        counts = [int(cascade.standing.sum()) for cascade in self.found.cascades]
        return any(count > NUM_LUCKY and count > MAX_MISSED * len(self.data.labels) for count in counts)

    def some(self, mask: Tensor, limit: int) -> Tensor:
        """(N,) bool: at most ``limit`` of the images in ``mask`` (N,), drawn in the same order each time."""
        order = torch.randperm(len(mask), generator=self.generator("images", torch.device("cpu")))
        chosen = order[mask[order]][:limit]
        return torch.zeros_like(mask).index_fill(0, chosen, True)

    def pixels(self, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Float images (B,3,H,W) in [0,1] and labels (B,) of ``mask`` (N,), on the device."""
        device = self.batching.device
        return as_floats(self.data.images[mask], device), self.data.labels[mask].to(device)

    def generator(self, purpose: str, device: torch.device | None = None) -> torch.Generator:
        """For one purpose; the same at each call."""
        seed = derive_seed(self.seed, "gates", purpose)
        return torch.Generator(device or self.batching.device).manual_seed(seed)

    def affordable(self, num_passes: int, part: float, most: int = NUM_CHECKED[1]) -> int:
        """How many images a gate may attack with ``num_passes`` each for a ``part`` of those so far."""
        least = NUM_CHECKED[0]
        spent = self.found.passes.num_forward + self.found.passes.num_backward
        return max(least, min(most, int(part * spent / num_passes)))

    def attack(self, outcome: CascadeOutcome, member: Member, among: Tensor) -> MemberOutcome:
        """Attack the images ``among`` (N,) bool that stand in ``outcome`` with ``member``."""
        seed = derive_seed(self.seed, "gates")
        run_cascade(self.held, self.data, outcome, [member], seed=seed, batching=self.batching, among=among)
        return outcome.members[-1]

    def count(self, other: CountedModel) -> None:
        """Passes through a stand-in are passes of this evaluation."""
        self.held.model.num_forward += other.num_forward
        self.held.model.num_backward += other.num_backward

    def apart(self, mask: Tensor) -> CascadeOutcome:
        """A cascade of its own on the images in ``mask`` (N,) that are classified correctly."""
        threat, kept = self.main.threat, self.main.kept
        outcome = CascadeOutcome.begin(threat, "gates", self.found.clean, self.data.images, kept)
        outcome.standing = outcome.standing & mask
        return outcome


def gate(name: str, passed: bool, good: str, bad: str) -> GateRecord:
    """A gate's record: ``good`` says what holds, ``bad`` what is wrong and what to do."""
    return GateRecord(name=name, passed=passed, detail=good if passed else bad)


def doubt(scene: Scene, name: str, holds: bool, seen: str, bad: str) -> GateRecord:
    """A gate that doubts the attacks: ``bad`` says what follows if what was ``seen`` does not hold.

    It blocks only if images stand: an attack that succeeded is proof, and 0 % cannot be too high.
    """
    if not holds and not scene.stands:
        return gate(name, True, f"{seen}; but almost no image is left standing, so no number is too high", "")
    return gate(name, holds, seen, f"{seen}{bad}")


def missed_at_least(num_fallen: int, num_checked: int, num_standing: int, num_images: int) -> float:
    """Robust accuracy that a suite surely missed, as a fraction 0..1.

    Of ``num_standing`` images (of ``num_images``) that stood, ``num_checked`` were attacked further and
    ``num_fallen`` fell: the lower end of that share's 95 % Wilson interval, as a share of all images.
    """
    return wilson(num_fallen, num_checked).low * num_standing / num_images if num_checked else 0.0


def outdone(
    scene: Scene, name: str, member: Member, by: str, bad: str, limit: int, allowed: float = MAX_MISSED
) -> GateRecord:
    """Attack images that the suite left standing with ``member``; what falls counts.

    Block when more fell than a suite may miss, ``allowed`` as a fraction: ``bad`` says what that means.
    """
    standing = scene.main.standing
    num_standing, num_images = int(standing.sum()), len(standing)
    if num_standing == 0:
        return gate(name, True, "no image is left standing, so there is nothing more to find", "")
    outcome = scene.attack(scene.main, member, scene.some(standing, limit))
    checked, fallen = int(outcome.attacked.sum()), int(outcome.fooled.sum())
    return judge(name, fallen, checked, num_standing, num_images, by, bad, allowed)


def judge(
    name: str,
    fallen: int,
    checked: int,
    num_standing: int,
    num_images: int,
    by: str,
    bad: str,
    allowed: float = MAX_MISSED,
) -> GateRecord:
    """The rule of ``MAX_MISSED`` as a sentence."""
    missed = missed_at_least(fallen, checked, num_standing, num_images)
    seen = f"{fallen} of {checked} images that stood fell to {by}"
    return gate(
        name,
        fallen <= NUM_LUCKY or missed <= allowed,
        seen,
        f"{seen}: at least {100 * missed:.1f} points of robust accuracy were not real "
        f"(allowed: {100 * allowed:.1f}). {bad}",
    )


def inherit(outcome: CascadeOutcome, other: CascadeOutcome, name: str) -> None:
    """What fell in ``other``, within no larger a ball, falls in ``outcome``: as a member called ``name``."""
    fooled = torch.stack([member.fooled for member in other.members]).any(0)
    fallen = outcome.standing & fooled
    outcome.members.append(
        MemberOutcome(
            name=name,
            settings={"from": other.threat.label},
            sees="carried",
            attacked=outcome.standing.clone(),
            fooled=fallen,
            prediction=torch.where(fallen, other.prediction, -1),
            distance=torch.where(fallen, other.distance, torch.nan),
        )
    )
    outcome.standing = outcome.standing & ~fallen
    outcome.worst_logits[fallen] = other.worst_logits[fallen]
    outcome.adopt(other, fallen)
