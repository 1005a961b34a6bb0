"""Everything random derives from the recipe's seed, through one function."""

import hashlib


def derive_seed(seed: int, *names: str | int) -> int:
    """A seed in 0..2^31-1 for one purpose, such as ``derive_seed(recipe.seed, "augment", epoch, step)``.

    The same arguments give the same seed on every machine; different names give unrelated seeds.
    """
    text = ":".join(map(str, (seed, *names)))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big") >> 1
