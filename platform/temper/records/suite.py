"""Which attacks a number rests on."""

from temper.records.optimism import caution_about
from temper.spec import Spec


class SuiteRecord(Spec):
    """An attack suite; records with different suites are not ranked together."""

    name: str
    version: int
    hash: str

    @property
    def caution(self) -> str:
        """By how much its numbers may be too high, where that was measured; else empty."""
        return caution_about(self.name, self.version)
