"""Defaults of a recipe that starts from pretrained weights (measured: docs/adaptation.md)."""

from collections.abc import Mapping
from typing import Any

OPTIM = {"kind": "adamw", "lr": "auto", "warmup_frac": 0.1, "max_grad_norm": 1.0, "ema_decay": "auto"}
"""A measured learning rate with warm-up, and averaged weights."""
BATCH_NORM = "frozen"
"""The statistics of a few hundred images are worse than the pretrained ones: with them EfficientNet-Lite0
forgets in one epoch what the probe knew."""


def with_pretrained_defaults(document: Mapping[str, Any]) -> dict[str, Any]:
    """``document``, a recipe as plain data, with the defaults of a pretrained start if it has one.

    Fields that it sets are kept. The defaults belong together, so a recipe that sets a learning rate gets
    none of them; one that sets only an optimizer keeps that optimizer's other settings.
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
