"""Which attacks a number rests on, and by how much it may be too high, as far as that was measured."""

from temper.spec import Spec

OPTIMISM: dict[tuple[str, int], float] = {
    ("quick-linf", 3): 0.033,
    ("quick-l2", 3): 0.052,
    ("quick-l1", 4): 0.101,
}
"""Suite and version -> the most robust accuracy (fraction) that it left above ``standard`` on one set of
images, in the table of docs/evaluation.md (`python bench/quick_optimism.py`)."""


def caution_about(suite: str, version: int) -> str:
    """What to know of a number by ``suite``; empty for suites that were not found to be short."""
    most = OPTIMISM.get((suite, version))
    if most is None:
        return ""
    return f"a short suite: up to {100 * most:.1f} points above standard where both were measured"


class SuiteRecord(Spec):
    """An attack suite; records with different suites are not ranked together."""

    name: str
    version: int
    hash: str

    @property
    def caution(self) -> str:
        """By how much its numbers may be too high, where that was measured; else empty."""
        return caution_about(self.name, self.version)
