"""``external.json``: what others published of a model, which was not measured here and cannot be checked."""

from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import AfterValidator, Field

from temper.records.documents import read_document
from temper.spec import Spec, Threat

EXTERNAL: Final = "external.json"
MAX_EXTERNAL_BYTES = 64 * 1024
LINK: Final = r"^https?://[A-Za-z0-9._~:/?#@!$&()*+,;=%-]+$"
"""Without characters that HTML or a table of Markdown could take for its own."""


def _printable(text: str) -> str:
    if not text.isprintable():
        raise ValueError(f"has characters that cannot be printed: {text[:60]!a}")
    return text


Words = Annotated[str, Field(max_length=2000), AfterValidator(_printable)]
Name = Annotated[str, Field(min_length=1, max_length=200), AfterValidator(_printable)]
Share = Annotated[float, Field(ge=0, le=1)]


class ExternalRecord(Spec):
    """A published result; accuracies are fractions 0..1, and ``None`` is what was not published."""

    kind: Literal["external"]
    """Tells it from every record of temper's own."""
    schema_version: Literal[1] = 1
    publisher: Literal["RobustBench"]
    name: Name
    """The model, as the publisher calls it."""
    data_name: Name
    """The data set, as boards here call it."""
    dataset: Name
    """The data set, as the publisher calls it."""
    threat: Threat
    clean_acc: Share
    autoattack_acc: Share | None
    """Robust accuracy under AutoAttack."""
    external_acc: Share | None
    """Robust accuracy under an evaluation that others made beside it; the footnote says which."""
    reported_acc: Share | None
    """What the authors say themselves."""
    is_unreliable: bool | None
    """AutoAttack flagged its own evaluation."""
    title: Words
    """Of the paper."""
    authors: Words
    link: Annotated[str, Field(max_length=500, pattern=LINK)] | None
    venue: Words
    architecture: Words
    extra_data: bool | None
    """Trained on further data."""
    num_forward_passes: int | None = Field(ge=1, le=1_000_000)
    """Of one answer."""
    footnote: Words

    @property
    def robust_acc(self) -> float | None:
        """The lowest that others than the authors found."""
        return min((acc for acc in (self.autoattack_acc, self.external_acc) if acc is not None), default=None)

    @property
    def evaluated_with(self) -> str:
        """What found ``robust_acc``."""
        if self.robust_acc is None:
            return "authors' report only"
        return "AutoAttack" if self.robust_acc == self.autoattack_acc else "external evaluation"


def read_external(path: Path) -> ExternalRecord:
    """Read ``external.json``.

    Raises:
        RecordError: missing, not JSON, too large, or not such a record.
    """
    return read_document(
        ExternalRecord,
        path,
        "no such record; create one with `temper import-entry`",
        max_bytes=MAX_EXTERNAL_BYTES,
    )
