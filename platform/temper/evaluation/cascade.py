"""The cascade: attacks run in turn on the images that survive; per image, the worst case counts."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from temper.attacks import Member, SearchMember, attacked_channels, is_grey
from temper.batches import as_floats
from temper.errors import DataError
from temper.evaluation.chunk_outcome import CascadeOutcome, MemberOutcome, wrong_unless
from temper.evaluation.counted_model import HeldModel
from temper.evaluation.search_cache import SearchCache
from temper.evaluation.threats import distances, is_valid, margins
from temper.seeds import derive_seed
from temper.spec import Threat

OnProgress = Callable[[str, int, int, float], None]
"""Called with the member, the numbers of images done and in all, and the robust accuracy so far."""


@dataclass(frozen=True)
class Batching:
    """How images are sent through the model."""

    batch_size: int
    device: torch.device


@dataclass(frozen=True)
class LabelledImages:
    """``images`` uint8 (N,3,H,W) with ``labels`` (N,), on the CPU."""

    images: Tensor
    labels: Tensor

    def attacked_within(self, threat: Threat) -> "LabelledImages":
        """What attacks change: of grey images within a grey ``threat`` one channel (N,1,H,W).

        Raises:
            DataError: a grey ``threat``, but images with colour.
        """
        if threat.is_grey and not is_grey(self.images).all():
            raise DataError(
                f"threat.channels: grey is for grey images, but {int((~is_grey(self.images)).sum())} of "
                f"{len(self.images)} have colour; set colour"
            )
        return replace(self, images=attacked_channels(self.images, threat.channels))


def run_cascade(
    model: HeldModel,
    data: LabelledImages,
    begun: CascadeOutcome,
    members: Sequence[Member],
    *,
    seed: int,
    batching: Batching,
    among: Tensor | None = None,
    searches: SearchCache | None = None,
    on_progress: OnProgress | None = None,
) -> CascadeOutcome:
    """Attack the images that stand in ``begun``, member by member; ``begun`` is updated and returned.

    ``among`` (N,) bool leaves the attacks to some of the images; ``searches`` has what members found for
    another eps of the same norm.

    No attack is trusted: each returned image is checked against the threat model and classified again here,
    by the model itself.
    """
    for member in members:
        turn = _Turn(model, member, data, begun, batching, among, searches, on_progress)
        turn.attack_survivors(derive_seed(seed, "evaluate", begun.threat.label, member.name))
        begun.members.append(turn.outcome())
    return begun


class _Turn:
    """One member's turn in the cascade."""

    def __init__(
        self,
        model: HeldModel,
        member: Member,
        data: LabelledImages,
        cascade: CascadeOutcome,
        batching: Batching,
        among: Tensor | None,
        searches: SearchCache | None,
        on_progress: OnProgress | None,
    ) -> None:
        self.model, self.member, self.data, self.searches = model, member, data, searches
        self.cascade, self.batching, self.on_progress = cascade, batching, on_progress
        self.threat: Threat = cascade.threat
        self.among = torch.ones_like(cascade.standing) if among is None else among
        self.before = cascade.standing & self.among
        self.prediction = torch.full_like(data.labels, -1)
        self.distance = torch.full(data.labels.shape, torch.nan)
        self.num_rejected = 0
        self.started = time.perf_counter()

    def attack_survivors(self, seed: int) -> None:
        """All restarts; in one batch as soon as it holds all that is left."""
        for restart in range(self.member.restarts):
            survivors = (self.cascade.standing & self.among).nonzero().flatten()
            left = self.member.restarts - restart
            if left > 1 and 0 < len(survivors) * left <= self.batching.batch_size:
                self._attack(survivors, left, derive_seed(seed, restart, "stacked"))
                self._report(len(survivors), len(survivors))
                return
            for start in range(0, len(survivors), self.batching.batch_size):
                chosen = survivors[start : start + self.batching.batch_size]
                self._attack(chosen, 1, derive_seed(seed, restart, start))
                self._report(start + len(chosen), len(survivors))

    def _report(self, done: int, total: int) -> None:
        if self.on_progress is not None:
            standing = float(self.cascade.standing.double().mean())
            self.on_progress(self.member.name, done, total, standing)

    def _attack(self, chosen: Tensor, copies: int, seed: int) -> None:
        """One batch of ``copies`` of each image; what comes back is judged copy by copy."""
        clean = as_floats(self.data.images[chosen], self.batching.device)
        labels = self.data.labels[chosen].to(self.batching.device)
        rows, images, labels = chosen.repeat(copies), clean.repeat(copies, 1, 1, 1), labels.repeat(copies)
        if self.searches is not None and isinstance(self.member, SearchMember):
            perturbed = self.searches.run(
                self.member, self.model.folded, images, labels, self.threat, rows, len(self.data.labels)
            )
        else:
            perturbed = self.member.run(self.model.folded, images, labels, self.threat, seed)
        for part in perturbed.detach().chunk(copies):
            self._judge(chosen, clean, part)

    def _judge(self, chosen: Tensor, clean: Tensor, perturbed: Tensor) -> None:
        """Count only perturbations that obey the threat model and verifiably fool the model."""
        valid = is_valid(clean, perturbed, self.threat)
        perturbed = torch.where(valid.view(-1, 1, 1, 1), perturbed.clamp(0, 1), clean)
        with torch.no_grad():
            logits, finite = (part.cpu() for part in self.model.model.answer(perturbed))
        lengths = distances(clean, perturbed, self.threat.norm).cpu()
        valid, labels = valid.cpu(), self.data.labels[chosen]
        # A model that has no answer has been broken.
        logits = wrong_unless(finite, logits, labels)
        prediction = logits.argmax(1)
        self.num_rejected += int((~valid).sum())
        fooled = self.cascade.standing[chosen] & valid & (prediction != labels)
        self.prediction[chosen[fooled]] = torch.where(finite, prediction, -1)[fooled]
        self.distance[chosen[fooled]] = lengths[fooled]
        self.cascade.fell(chosen, fooled, perturbed)
        self.cascade.see(chosen, fooled, valid, logits, margins(logits, labels), labels)

    def outcome(self) -> MemberOutcome:
        return MemberOutcome(
            name=self.member.name,
            settings=self.member.model_dump(mode="json"),
            sees=self.member.sees,
            attacked=self.before,
            fooled=self.before & ~self.cascade.standing,
            prediction=self.prediction,
            distance=self.distance,
            num_rejected=self.num_rejected,
            seconds=time.perf_counter() - self.started,
        )
