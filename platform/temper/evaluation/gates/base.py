"""How a gate speaks."""

from temper.records import GateRecord


def gate(name: str, passed: bool, good: str, bad: str) -> GateRecord:
    """A gate's record: ``good`` says what holds, ``bad`` what is wrong and what to do."""
    return GateRecord(name=name, passed=passed, detail=good if passed else bad)
