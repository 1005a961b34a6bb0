"""Random numbers that depend on the seed and the image's own number, and on nothing else."""

import math

import torch
from torch import Tensor

from temper.seeds import derive_seed

# The multipliers of a 32-bit mixing function with low bias, found by search by C. Wellons (hash-prospector);
# written as signed numbers, because torch's int32 wraps as unsigned multiplication does.
_FIRST, _SECOND = 0x7FEB352D, 0x846CA68B - 2**32


def mix(values: Tensor) -> Tensor:
    """Scramble int32 ``values`` in place, one to one: every bit moves all of the result's."""
    values ^= (values >> 16) & 0xFFFF
    values *= _FIRST
    values ^= (values >> 15) & 0x1FFFF
    values *= _SECOND
    values ^= (values >> 16) & 0xFFFF
    return values


class Draws:
    """A stream of random numbers per image: a counter, mixed twice with the two keys of the image.

    An image's numbers depend on ``seed``, ``names`` and its entry of ``rows`` (B,), not on its neighbours in
    the batch, so any split of the images over batches and workers gives the same pixels. They are made on
    the device of ``rows``, for the whole batch at once. Bits and uniform numbers are the same on every
    device; normal ones can differ in the last place.
    """

    def __init__(self, rows: Tensor, seed: int, *names: str | int) -> None:
        keys = []
        for half in ("first", "second"):
            base = derive_seed(seed, "corruptions", *names, half)
            low = mix((rows & 0x7FFFFFFF).to(torch.int32) ^ base)
            keys.append(mix((rows >> 31).to(torch.int32) + low))
        self._first, self._second = (key[:, None] for key in keys)
        self._drawn = 0

    def __len__(self) -> int:
        return len(self._first)

    @property
    def device(self) -> torch.device:
        return self._first.device

    def bits(self, *shape: int) -> Tensor:
        """int32 (B, *shape): 32 random bits each."""
        count = math.prod(shape)
        counter = torch.arange(self._drawn, self._drawn + count, dtype=torch.int32, device=self._first.device)
        self._drawn += count
        return mix(mix(counter ^ self._first) + self._second).reshape(-1, *shape)

    def uniform(self, *shape: int, low: float = 0.0, high: float = 1.0) -> Tensor:
        """float32 (B, *shape), uniform in [low, high), in steps of 2^-24 of the range."""
        unit = ((self.bits(*shape) >> 8) & 0xFFFFFF).float() / 2**24
        return unit * (high - low) + low

    def integers(self, *shape: int, low: int, high: int) -> Tensor:
        """int64 (B, *shape), uniform in low..high, both included."""
        return (self.uniform(*shape) * (high - low + 1)).long() + low

    def normal(self, *shape: int) -> Tensor:
        """float32 (B, *shape), standard normal (Box and Muller 1958)."""
        count = math.prod(shape)
        half = (count + 1) // 2
        radius = (-2 * torch.log1p(-self.uniform(half))).sqrt()
        angle = self.uniform(half, high=2 * math.pi)
        return torch.cat([radius * angle.cos(), radius * angle.sin()], dim=1)[:, :count].reshape(-1, *shape)
