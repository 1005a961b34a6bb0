"""Attacks of Foolbox as members of a suite."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from temper.attacks import Member, SearchMember, cut
from temper.seeds import derive_seed
from temper.spec import Geometry, Threat


class FoolboxMember(Member):
    """An attack of Foolbox, with its defects mended. It sees as many images at once as fit."""

    def run(self, model: nn.Module, images: Tensor, labels: Tensor, threat: Threat, seed: int) -> Tensor:
        found = []
        for rows in cut(images):
            own = seed if rows.start == 0 else derive_seed(seed, "portion", rows.start)
            with as_foolbox(model, images[rows], own) as fmodel:
                found.append(self.attack(fmodel, images[rows].clamp(0, 1), labels[rows], threat))
        return torch.cat(found)

    def attack(self, fmodel: Any, images: Tensor, labels: Tensor, threat: Threat) -> Tensor:
        """Perturbed images. Foolbox's raw ones may leave the ball, so the clipped ones are taken."""
        _, clipped, _ = self.build(threat.norm)(fmodel, images, labels, epsilons=threat.eps)
        return clipped  # type: ignore[no-any-return]

    def build(self, norm: Geometry) -> Any:
        """The Foolbox attack."""
        raise AssertionError(f"{type(self).__name__} does not name its attack")


class FoolboxSearchMember(SearchMember):
    """An attack of Foolbox that looks for the smallest perturbation, with its defects mended."""

    def search(self, model: nn.Module, images: Tensor, labels: Tensor, norm: Geometry) -> Tensor:
        parts = []
        for rows in cut(images):
            with as_foolbox(model, images[rows], seed=0) as fmodel:
                found, _, _ = self.build(norm)(fmodel, images[rows].clamp(0, 1), labels[rows], epsilons=None)
            parts.append(found)
        return torch.cat(parts)

    def within(self, images: Tensor, found: Tensor, threat: Threat) -> Tensor:
        clipped: Tensor = self.build(threat.norm).distance.clip_perturbation(images, found, threat.eps)
        return clipped

    def build(self, norm: Geometry) -> Any:
        """The Foolbox attack."""
        raise AssertionError(f"{type(self).__name__} does not name its attack")


@contextmanager
def as_foolbox(model: nn.Module, images: Tensor, seed: int) -> Iterator[Any]:
    """``model`` as Foolbox wants it, and the global generators, which its attacks draw from, at ``seed``.

    Give its attacks images that are clamped to [0,1]: it refuses a batch for an excess of 1e-7, without a
    word.
    """
    import foolbox

    with torch.random.fork_rng(enabled=True):
        torch.manual_seed(seed)
        yield foolbox.PyTorchModel(model, bounds=(0, 1), device=images.device)


def without_black_images(images: Tensor, found: Tensor, clipped: Tensor) -> Tensor:
    """``clipped``, but the images themselves where ``found``, a minimum-norm attack's result, is black.

    Black is what Carlini-Wagner and EAD return of an image that they could not fool. Foolbox counts it as a
    success wherever the model takes black for another class.
    """
    failed = (found == 0).flatten(1).all(1)
    return torch.where(failed.view(-1, 1, 1, 1), images, clipped)
