"""Linear probing, then fine-tuning."""

from collections.abc import Sequence
from typing import Literal

from pydantic import Field

from temper.schedules.base import Phase, Schedule, last_groups


class LPFT(Schedule):
    """Probe the head on frozen features, then train everything at a smaller rate.

    Kumar et al. 2022, arXiv:2202.10054. The probe sees clean images, and is solved exactly in one epoch. A
    run of one epoch only probes.
    """

    kind: Literal["lp_ft"] = "lp_ft"
    head_frac: float | None = Field(default=None, gt=0, lt=1)
    """Share of the run that belongs to the probe; ``null``: one epoch. A probe that is solved exactly takes
    one epoch and skips the others, which recipes of earlier versions ask for.
    """
    full_lr_factor: float = Field(default=0.1, gt=0, le=1)

    @property
    def label(self) -> str:
        return self.kind if self.head_frac is None else f"{self.kind}({self.head_frac:g})"

    @property
    def probes_under_attack(self) -> bool:
        """Whether the recipe's adversary takes part in the probe."""
        return False

    def plan(self, num_epochs: int, groups: Sequence[str]) -> list[Phase]:
        head = last_groups(groups, 1, self.kind)
        num_probe = min(max(1, round(num_epochs * (self.head_frac or 0))), max(1, num_epochs - 1))
        phases = [self.phase("probe", 0, num_probe, head, is_attacked=self.probes_under_attack)]
        if num_probe < num_epochs:
            phases.append(
                self.phase(
                    "fine-tune", num_probe, num_epochs - num_probe, groups, lr_factor=self.full_lr_factor
                )
            )
        return phases


class RoLI(LPFT):
    """``lp_ft`` whose probe is trained under attack as well: the robust start of robust fine-tuning.

    Hua et al. 2024 (RoLI, CVPR), arXiv:2312.05716. Start from a robust checkpoint.
    """

    kind: Literal["roli"] = "roli"  # type: ignore[assignment]
    head_frac: float = Field(default=0.5, gt=0, lt=1)
    """Share of the run that belongs to the probe, which is trained by steps; without an adversary it is
    solved as in ``lp_ft``.
    """

    @property
    def probes_under_attack(self) -> bool:
        return True
