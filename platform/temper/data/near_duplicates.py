"""Pictures that are nearly the same: saved again, resized, brighter, or taken twice.

A hash of 64 bits (which of a thumbnail's lowest frequencies are above their median: pHash, Zauner 2010) finds
candidates in linear time, and the correlation of the same frequencies decides. The hash alone would name
thousands of pairs of X-rays or shoes that only look alike.
"""

from collections.abc import Iterator, Sequence
from itertools import combinations, pairwise

import numpy as np
from PIL import Image

from temper.data.groups import linked_rows

SIDE = 16
"""Of a thumbnail, in pixels."""
MAX_DISTANCE = 4
"""Bits in which the hashes of near duplicates differ at most."""
MIN_CORRELATION = 0.9985
"""Of the low frequencies of two thumbnails. Measured (docs/log.md): the pairs that it finds among 38,000
real images of seven sets show one thing twice; at 0.997, some do not."""
MIN_CONTRAST = 2.0
"""Standard deviation, in grey levels, below which a thumbnail shows nothing that could be compared."""
BLOCKS = (0, 11, 22, 33, 44, 54, 64)
"""Ends of the parts of a hash: of two hashes within ``MAX_DISTANCE``, two of the six parts are equal."""
MAX_NEIGHBOURS = 64
"""Candidates that each hash is compared with for a pair of parts, so that sets of one motif stay linear."""
CHUNK = 8192
"""Pictures, or pairs, that are worked on at a time."""


def thumbnail(image: Image.Image) -> bytes:
    """``SIDE`` x ``SIDE`` grey pixels of an image."""
    small = image.convert("L").resize((SIDE, SIDE), Image.Resampling.BILINEAR, reducing_gap=2.0)
    return small.tobytes()


def near_duplicates(thumbnails: Sequence[bytes]) -> np.ndarray:
    """For every picture (N,) a number that near duplicates share, directly or in a chain; -1 without any."""
    pixels = np.frombuffer(b"".join(thumbnails), np.uint8).reshape(-1, SIDE, SIDE)
    found = [_frequencies(pixels[start : start + CHUNK]) for start in range(0, len(pixels), CHUNK)]
    frequencies = np.concatenate([np.empty((0, 64), np.float32), *found])
    contrast = np.linalg.norm(frequencies[:, 1:], axis=1) / SIDE
    rows = np.flatnonzero(contrast >= MIN_CONTRAST)
    own = frequencies[rows]
    linked = linked_rows(len(rows), _alike(own, hashes_of(own)))
    numbers = np.full(len(pixels), -1, np.int64)
    numbers[rows] = np.where(np.bincount(linked, minlength=len(rows))[linked] > 1, rows[linked], -1)
    return numbers


def _frequencies(pixels: np.ndarray) -> np.ndarray:
    """The 8 x 8 lowest frequencies (N,64) of thumbnails (N,16,16), orthonormal; the mean comes first."""
    steps = np.arange(SIDE)
    cosines = np.cos(np.pi * (steps + 0.5) * steps[:8, None] / SIDE).astype(np.float32)
    cosines *= np.sqrt(np.where(steps[:8, None] == 0, 1, 2) / SIDE).astype(np.float32)
    return (cosines @ pixels.astype(np.float32) @ cosines.T).reshape(-1, 64)


def hashes_of(frequencies: np.ndarray) -> np.ndarray:
    """The hash, uint64 (N,): which frequencies (N,64) are above their median."""
    bits = frequencies > np.median(frequencies[:, 1:], axis=1, keepdims=True)
    return np.packbits(bits, axis=1).view(np.uint64)[:, 0]


def _alike(frequencies: np.ndarray, hashes: np.ndarray) -> Iterator[tuple[int, int]]:
    """Pairs of pictures whose hashes (N,) and frequencies (N,64) are close."""
    pairs = _candidates(hashes)
    shapes = frequencies[:, 1:] / np.linalg.norm(frequencies[:, 1:], axis=1, keepdims=True)
    for start in range(0, len(pairs), CHUNK):
        part = pairs[start : start + CHUNK]
        correlations = (shapes[part[:, 0]] * shapes[part[:, 1]]).sum(1)
        yield from map(tuple, part[correlations >= MIN_CORRELATION].tolist())


def _candidates(hashes: np.ndarray) -> np.ndarray:
    """Pairs (P,2), each once, of hashes within ``MAX_DISTANCE``."""
    order = np.argsort(hashes, kind="stable")
    ranked, parts = hashes[order], pairwise(BLOCKS)
    found = [np.empty((0, 2), np.int64)]
    for blocks in combinations(parts, 2):
        mask = np.uint64(sum((1 << end) - (1 << start) for start, end in blocks))
        keys = ranked & mask
        by_key = np.argsort(keys, kind="stable")
        keys = keys[by_key]
        for step in range(1, MAX_NEIGHBOURS + 1):
            same = np.flatnonzero(keys[step:] == keys[:-step])
            if not len(same):
                break
            first, second = by_key[same], by_key[same + step]
            near = np.bitwise_count(ranked[first] ^ ranked[second]) <= MAX_DISTANCE
            found.append(np.sort(order[np.stack([first[near], second[near]], 1)], 1))
    return np.unique(np.concatenate(found), axis=0)
