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

    What it says itself stays. They belong together, so a recipe that names a rate of its own gets none of
    them; one that names an optimizer alone keeps that one's other settings.
    """
    filled = dict(document)
    model, optim = filled.get("model"), filled.get("optim", {})
    if not isinstance(model, Mapping) or model.get("weights") is None or not isinstance(optim, Mapping):
        return filled
    if optim.get("lr", "auto") != "auto":
        return filled
    filled["optim"] = {**({"lr": "auto"} if "kind" in optim else OPTIM), **optim}
    schedule = filled.get("schedule", {"kind": "full"})
    if isinstance(schedule, Mapping) and schedule.get("kind") != "twins":
        filled["schedule"] = {"batch_norm": BATCH_NORM, **schedule}
    return filled
