"""Adversarial patches: any colours, but within one square; each image has a patch and a place of its own.

Brown et al. 2017, arXiv:1712.09665, and Karmon et al. 2018 (LaVAN), arXiv:1801.02608; places are searched
for, as in Rao et al. 2020, arXiv:2005.02313.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Literal, Self

import torch
from pydantic import Field
from torch import Tensor

from temper.attacks.apgd import APGDAscent
from temper.attacks.ascent import Found, Problem, look, where
from temper.attacks.base import LogitsFn, ascend, cross_entropy_of
from temper.attacks.draws import draw_like
from temper.attacks.losses import SHORT, LossName, likely_goals, smallest_num_classes
from temper.attacks.member import Member
from temper.attacks.patches import corners_of, masks_at, patch_side, promising_corners, shares_of_places
from temper.attacks.pgd import PGD
from temper.spec import Geometry, Threat, format_ratio


class PatchAttack(Member):
    """The strongest patch that is found: short climbs at many places, then a long one at the best of them.

    Every climb is Auto-PGD (arXiv:2003.01690) within the square. Images that are fooled leave. Draws are
    made for the whole batch, so no image's depend on which others have fallen.
    """

    kind: Literal["patch"] = "patch"
    geometries: ClassVar[tuple[Geometry, ...]] = ("patch",)
    loss: LossName = "margin"
    locations: int = Field(default=16, ge=1, le=10_000)
    """Places that are tried with ``scout_steps`` each; half of them at random."""
    scout_steps: int = Field(default=8, ge=1, le=10_000)
    steps: int = Field(default=50, ge=1, le=10_000)
    """At the best place, from where its short climb ended."""
    num_goals: int = Field(default=0, ge=0)
    """The likeliest wrong classes, with a search over places for each; 0: away from the label only."""

    @property
    def name(self) -> str:
        goals = f"-goals-{self.num_goals}" if self.num_goals else ""
        return (
            f"patch-{SHORT[self.loss]}-{self.locations}x{self.scout_steps}-{self.steps}{goals}{self.suffix}"
        )

    def suits(self, num_classes: int) -> bool:
        # Towards the only other class is away from the label.
        enough = smallest_num_classes(self.loss, has_goal=self.num_goals > 0)
        return num_classes >= max(enough, 3 if self.num_goals else 2)

    def perturb(
        self,
        logits_fn: LogitsFn,
        images: Tensor,
        labels: Tensor,
        threat: Threat,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        side = patch_side(threat.eps, *images.shape[-2:])
        if side == 0:
            return images.clone()
        nowhere = torch.zeros_like(images[:, :1])
        problem = Problem(logits_fn, "linf", self.loss, images, labels, nowhere)
        found = Found.nothing(images)
        for goal_labels in self._goals(logits_fn, images, labels):
            if found.fooled.all():
                break
            self._search(replace(problem, goal_labels=goal_labels), side, found, generator)
        return found.perturbed

    def _goals(self, logits_fn: LogitsFn, images: Tensor, labels: Tensor) -> Sequence[Tensor | None]:
        if self.num_goals == 0:
            return [None]
        with torch.no_grad():
            return likely_goals(logits_fn(images), labels, self.num_goals).unbind(1)

    def _search(self, problem: Problem, side: int, found: Found, generator: torch.Generator | None) -> None:
        """One search over places; ``found`` takes what is better."""
        images = problem.images
        best = _Places(Found.nothing(images), problem.eps.clone())
        for corners in self._corners(problem, side, generator):
            masks = masks_at(corners, side, images)
            colours = torch.empty_like(images).uniform_(generator=generator)
            start = torch.where(masks > 0, colours, images)
            rows = found.standing_rows
            if len(rows) == 0:
                return
            tried = _climb(problem, masks, start, rows, self.scout_steps)
            best.update(rows, tried, masks)
            found.update(rows, tried)
        rows = found.standing_rows
        if len(rows):
            found.update(rows, _climb(problem, best.masks, best.found.perturbed, rows, self.steps))

    def _corners(self, problem: Problem, side: int, generator: torch.Generator | None) -> Iterator[Tensor]:
        """(B,2) ``locations`` times, by turns: where the gradient at the image promises most, and at random.

        The second are for models whose gradient at the image says little.
        """
        images = problem.images
        shares = shares_of_places(images, generator)
        _, _, gradient = look(problem, images)
        gradient = torch.nan_to_num(gradient, nan=0.0, posinf=0.0, neginf=0.0)
        # The most that a colour in 0..1 can gain, were the loss linear.
        gains = torch.maximum(gradient * (1 - images), -gradient * images).sum(1)
        promising = promising_corners(gains, side, (self.locations + 1) // 2)
        for index in range(self.locations):
            is_random = index % 2 == 1
            yield corners_of(shares, index, side, images) if is_random else promising[index // 2]


@dataclass
class _Places:
    """The best place of each image so far, and what was found there."""

    found: Found
    masks: Tensor
    """(B,1,H,W)."""

    def update(self, rows: Tensor, tried: Found, masks: Tensor) -> None:
        """Take the places ``masks`` (B,1,H,W) where ``tried`` is better on ``rows``."""
        better = self.found.update(rows, tried)
        self.masks[rows] = where(better, masks[rows], self.masks[rows])


def _climb(problem: Problem, masks: Tensor, start: Tensor, rows: Tensor, steps: int) -> Found:
    """Auto-PGD within the squares of some of the images."""
    turn = replace(problem, eps=masks).rows(rows)
    return APGDAscent(turn, start[rows], steps).run(steps)


class PatchPGD(PGD):
    """Sign steps on the cross-entropy at one random place per image, for training and its validation.

    As the adversary of Rao et al. 2020, arXiv:2005.02313, without moving the patch; of several ``restarts``,
    each at a place of its own, an image keeps the one with the highest loss. ``step_size`` ``null``: 2.5 over
    ``steps``, for a colour may change by 1.
    """

    kind: Literal["patch"] = "patch"  # type: ignore[assignment]
    norm: Literal["patch"] = "patch"  # type: ignore[assignment]

    @property
    def label(self) -> str:
        return f"{self.kind} {format_ratio(self.eps)}"

    def scaled(self, factor: float) -> Self:
        """The same attack with a smaller square; how fast colours change is no matter of its area."""
        return self if factor == 1 else self.model_copy(update={"eps": self.eps * factor})

    def _descend(
        self, logits_fn: LogitsFn, images: Tensor, labels: Tensor, generator: torch.Generator | None
    ) -> Tensor:
        side = patch_side(self.eps, *images.shape[-2:])
        if side == 0:
            return images.clone()
        masks = masks_at(corners_of(shares_of_places(images, generator), 0, side, images), side, images)
        start = images
        if self.random_start:
            colours = draw_like(lambda t: t.uniform_(generator=generator), images, generator)
            start = torch.where(masks > 0, colours, images)
        loss = cross_entropy_of(logits_fn, labels)
        step_size = self.step_size or min(1.0, 2.5 / self.steps)
        return ascend(loss, "linf", start, images, masks, step_size, self.steps)
