"""Gates on what the attacks returned."""

from temper.evaluation.chunk_outcome import ChunkOutcome
from temper.evaluation.gates.base import gate
from temper.records import GateRecord


def check_outcomes(found: ChunkOutcome, num_not_finite: int) -> list[GateRecord]:
    """Gates on everything that was found, with ``num_not_finite`` answers that were NaN or infinite."""
    members = [member for cascade in found.cascades for member in cascade.members]
    rejected = {member.name: member.num_rejected for member in members if member.num_rejected}
    listed = ", ".join(f"{name}: {count}" for name, count in rejected.items())
    return [
        gate(
            "threat model kept",
            not rejected,
            "every returned image was finite, in [0,1] and within eps",
            f"images broke the threat model and were not counted ({listed}); fix or replace that attack",
        ),
        gate(
            "finite logits",
            num_not_finite == 0,
            "every answer was finite",
            f"{num_not_finite} answers were NaN or infinite, and count as wrong; fix the model",
        ),
    ]
