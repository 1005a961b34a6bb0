"""A folder that had one writer, and within it another."""

from pathlib import Path

from temper.records import write_atomic
from temper.storage import fetched, mirrored


def test_what_a_later_writer_within_took_over_stays_here(bucket: str) -> None:
    """As the report of a sweep, which `temper sweep report` writes again."""
    sweep = Path(f"{bucket}/sweep")
    with mirrored(sweep) as folder:
        write_atomic(folder / "ledger.jsonl", "{}")
        write_atomic(folder / "report/sweep.html", "first")
    with mirrored(sweep / "report") as report:
        write_atomic(report / "sweep.html", "second")
    for _ in range(2):
        assert (fetched(sweep) / "report/sweep.html").read_text() == "second"
    with mirrored(sweep / "report"):
        pass
    assert (fetched(sweep) / "report/sweep.html").read_text() == "second"
