"""Checks that block a number which cannot be trusted."""

import torch
from torch import Tensor

from temper.attacks import PGD
from temper.evaluation.cascade import CascadeOutcome
from temper.evaluation.passes import CountedModel
from temper.records import GateRecord
from temper.spec import Geometry


def check_model(model: CountedModel, images: Tensor, labels: Tensor, norm: Geometry) -> list[GateRecord]:
    """Gates on a few float images (B,3,H,W) in [0,1], before anything is attacked."""
    with torch.no_grad():
        first, second = model(images), model(images)
    training = [name for name, module in model.named_modules() if module.training]
    unmoved = PGD(norm="linf", eps=0.0, steps=2).perturb(
        model, images, labels, torch.Generator(images.device)
    )
    return [
        _gate(
            "eval mode",
            not training,
            "every module is in eval mode",
            f"'{training[0] if training else ''}' stays in training mode; let eval() reach it",
        ),
        _gate(
            "deterministic forward",
            torch.equal(first, second),
            "two passes over the same images give equal logits",
            "two passes over the same images differ; remove what is random in forward",
        ),
        _gate(
            "logits",
            not _looks_like_probabilities(first),
            "outputs are logits",
            "outputs look like probabilities, which starve gradients; return logits",
        ),
        _gate(
            "eps 0 is clean",
            torch.equal(unmoved, images),
            "an attack with eps 0 changes nothing",
            "an attack with eps 0 changed images; the bounds or the projection are wrong",
        ),
    ]


def check_cascade(outcome: CascadeOutcome) -> list[GateRecord]:
    """Gates on what the attacks returned."""
    rejected = {m.record.name: m.record.num_rejected for m in outcome.members if m.record.num_rejected}
    listed = ", ".join(f"{name}: {count}" for name, count in rejected.items())
    return [
        _gate(
            "threat model kept",
            not rejected,
            "every returned image was finite, in [0,1] and within eps",
            f"images broke the threat model and were not counted ({listed}); mend or replace that attack",
        )
    ]


def _looks_like_probabilities(outputs: Tensor) -> bool:
    sums = outputs.sum(1)
    return bool((outputs >= 0).all() and torch.allclose(sums, torch.ones_like(sums), atol=1e-4))


def _gate(name: str, passed: bool, good: str, bad: str) -> GateRecord:
    return GateRecord(name=name, passed=passed, detail=good if passed else bad)
