"""Linear probing, then fine-tuning."""

from collections.abc import Sequence
from typing import Literal

from pydantic import Field

from temper.schedules.base import Phase, Schedule, last_groups


class LPFT(Schedule):
    """Probe the head on frozen features, then train everything at a smaller rate.

    Kumar et al. 2022, arXiv:2202.10054. A run of one epoch only probes.
    """

    kind: Literal["lp_ft"] = "lp_ft"
    head_frac: float = Field(default=0.5, gt=0, lt=1)
    full_lr_factor: float = Field(default=0.1, gt=0, le=1)

    @property
    def label(self) -> str:
        return f"lp_ft({self.head_frac:g})"

    def phases(self, num_epochs: int, groups: Sequence[str]) -> list[Phase]:
        num_probe = (
            num_epochs if num_epochs == 1 else min(max(1, round(num_epochs * self.head_frac)), num_epochs - 1)
        )
        head = last_groups(groups, 1, self.kind)
        phases = [Phase(name="probe", start_epoch=0, num_epochs=num_probe, trainable=head)]
        if num_probe < num_epochs:
            phases.append(
                Phase(
                    name="fine-tune",
                    start_epoch=num_probe,
                    num_epochs=num_epochs - num_probe,
                    trainable=tuple(groups),
                    lr_factor=self.full_lr_factor,
                )
            )
        return phases
