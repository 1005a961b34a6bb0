"""By how much the numbers of a short suite may be too high, as far as it was measured."""

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
