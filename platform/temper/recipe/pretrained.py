"""What a recipe leaves out, where it starts from pretrained weights (measured: docs/adaptation.md)."""

from collections.abc import Mapping
from typing import Any

OPTIM = {"kind": "adamw", "lr": "auto", "warmup_frac": 0.1, "max_grad_norm": 1.0, "ema_decay": "auto"}
"""A rate that fits these images, reached slowly; weights that are averaged."""
BATCH_NORM = "frozen"
"""Statistics of a few hundred images are worse than those of the weights: with them EfficientNet-Lite0
forgets in one epoch what the probe knew."""


def with_pretrained_defaults(document: Mapping[str, Any]) -> dict[str, Any]:
    """``document``, a recipe as plain data, with the defaults of a pretrained start where it has one.

    What it says itself stays. With an optimizer of its own it keeps that one's defaults but for the rate.
    """
    filled = dict(document)
    model = filled.get("model")
    if not isinstance(model, Mapping) or model.get("weights") is None:
        return filled
    optim = filled.get("optim", {})
    if isinstance(optim, Mapping):
        defaults = OPTIM if "kind" not in optim and "lr" not in optim else {"lr": "auto"}
        filled["optim"] = {**defaults, **optim}
    schedule = filled.get("schedule", {"kind": "full"})
    if isinstance(schedule, Mapping) and schedule.get("kind") != "twins":
        filled["schedule"] = {"batch_norm": BATCH_NORM, **schedule}
    return filled
