"""What a perturbation is measured by, and how large it may be."""

from typing import Literal

from pydantic import Field

from temper.spec.base import Ratio, Spec, format_ratio

Norm = Literal["linf", "l2", "l1"]
"""Norms whose balls gradients can be followed in: those of training."""

TrainedNorm = Literal["linf", "l2", "l1", "patch"]
"""What can be trained against. ``patch``: anything within one square."""

Geometry = Literal["linf", "l2", "l1", "l0", "semantic", "patch"]
"""What a perturbation is measured by. ``l0``: pixels changed; ``semantic``: rotation, shift, contrast,
blur; ``patch``: the area of the smallest square that holds all that changed, as a share of the image."""

Channels = Literal["colour", "grey"]
"""Whether each channel is changed on its own, or grey images remain grey."""


class Threat(Spec):
    """What robust accuracy means here: all perturbations of at most ``eps`` in ``norm``.

    ``eps`` is in pixel units of [0,1]: 8/255 for Linf, for example, 0.5 for L2, or 12 for L1. In L0 it is a
    number of pixels, of semantic changes a strength: 1 is the whole range of each. Of a patch it is the share
    of the image's area: any colours within one square anywhere, such as a sticker.
    """

    norm: Geometry = "linf"
    eps: Ratio
    # Left out of what is written where it is as before there was a choice, so that hashes stay.
    channels: Channels = Field(default="colour", exclude_if=lambda channels: channels == "colour")
    """``grey``: images must be grey and remain so. All three channels get one perturbation, whose ``norm`` is
    that of the grey image, each pixel counted once. ``colour``: each channel is changed on its own.
    """

    def model_post_init(self, _context: object) -> None:
        check_eps(self.norm, self.eps)

    @property
    def label(self) -> str:
        """A short name such as ``Linf 8/255``."""
        return f"{self.norm.capitalize()} {format_ratio(self.eps)}" + (" grey" if self.is_grey else "")

    @property
    def is_grey(self) -> bool:
        """Whether the channels of an image are changed alike."""
        return self.channels == "grey"


class BallThreat(Threat):
    """A threat model that can be trained against."""

    norm: TrainedNorm = "linf"

    @property
    def of_evaluation(self) -> Threat:
        """The same among all threat models."""
        return Threat(norm=self.norm, eps=self.eps, channels=self.channels)


def check_eps(norm: Geometry, eps: float) -> None:
    """Refuse an ``eps`` that cannot be meant in pixel units of [0,1].

    Raises:
        ValueError: ``eps`` is negative, or larger than the whole range (Linf), 32 (L2), 3072 (L1), a million
            pixels (L0), 1 (semantic) or the whole area (patch); or it is no whole number of pixels.
    """
    # L1: the whole range of every pixel of an image of 32 x 32.
    largest = {"linf": 1.0, "l2": 32.0, "l1": 3072.0, "l0": 1e6, "semantic": 1.0, "patch": 1.0}[norm]
    if norm == "l0" and eps != int(eps):
        raise ValueError(f"eps of l0 is a number of pixels, got {eps:g}")
    if norm == "patch" and not 0 <= eps <= largest:
        raise ValueError(f"eps of a patch is its share of the image's area, 0..1, got {eps:g}")
    if not 0 <= eps <= largest:
        hint = f"; did you mean {eps:g}/255?" if largest < eps <= 255 else ""
        raise ValueError(
            f"eps is in pixel units of [0,1], so for {norm} it lies in 0..{largest:g}, got {eps:g}{hint}"
        )
