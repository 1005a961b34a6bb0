"""How a phase of a run is shown."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from temper.cluster.estimate import Estimate
    from temper.training import PhasePlan, RateTest


def plan_rows(plan: "PhasePlan", lr: float | str) -> list[list[object]]:
    """A line for each group that trains; what holds for the whole phase stands in the first."""
    phase = plan.phase
    images = "attacked" if plan.is_attacked else "solved exactly" if plan.is_solved else "clean"
    rows: list[list[object]] = []
    for group, count in plan.num_params.items():
        own = [group, f"{count:,}", "–" if plan.is_solved else _rate(lr, plan.lr_factors[group])]
        if rows:
            rows.append(["", "", *own, "", ""])
        else:
            last = phase.end_epoch
            epochs = f"{phase.start_epoch + 1}-{last}" if phase.num_epochs > 1 else str(last)
            # Where only the head trains, every BatchNorm is part of the frozen body.
            batch_norm = "still" if list(plan.num_params) == ["head"] else phase.batch_norm
            rows.append([phase.name, epochs, *own, batch_norm, images])
    if len(rows) > 1:
        rows.append(["", "", "all", f"{sum(plan.num_params.values()):,}", "", "", ""])
    return rows


def plan_summary(plan: "PhasePlan", lr: float | str) -> dict[str, Any]:
    """The same as plain data."""
    phase = plan.phase
    return {
        "name": phase.name,
        "epochs": [phase.start_epoch + 1, phase.end_epoch],
        "trainable_params": plan.num_params,
        "learning_rates": {
            group: _rate(lr, factor) if isinstance(lr, str) else lr * factor
            for group, factor in plan.lr_factors.items()
        },
        "batch_norm": phase.batch_norm,
        "is_attacked": plan.is_attacked,
        "is_solved": plan.is_solved,
    }


def cost_line(estimate: "Estimate") -> str:
    """What a run may take."""
    from temper.cli.watch import duration  # which loads pydantic

    took = duration(estimate.compute_s) if estimate.compute_s >= 1 else "less than 1 s"
    megabytes = estimate.memory_bytes / 1e6
    memory = f"{megabytes / 1000:.1f} GB" if megabytes >= 1000 else f"{megabytes:.0f} MB"
    return (
        f"estimated: {took} of one worker ({estimate.num_passes:.3g} image passes at "
        f"{1e6 * estimate.seconds_per_pass:.0f} µs each, timed on this machine's CPU) and up to {memory} of "
        "its memory; images and evaluation come on top"
    )


def rate_line(rate: "RateTest") -> str:
    """What ``optim.lr: auto`` came to."""
    if not rate.was_measured:
        return f"learning rate {rate.lr:g}: the run is too short to measure one"
    if rate.limit is None:
        return f"learning rate {rate.lr:g}: measured, no rate made the start forget what it knew"
    return f"learning rate {rate.lr:g}: measured, at {rate.limit:.2g} the start forgets what it knew"


def _rate(lr: float | str, factor: float) -> str:
    """The rate of a group; one that is yet to be measured has its factor alone."""
    if isinstance(lr, str):
        return lr if factor == 1 else f"{lr} × {factor:.2g}"
    return f"{lr * factor:.2g}"
