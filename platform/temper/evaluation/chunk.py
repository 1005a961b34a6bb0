"""One chunk of the images, from the clean answers through every cascade."""

import time

import torch
from torch import Tensor, nn

from temper.evaluation.cascade import Batching, LabelledImages, OnProgress, run_cascade
from temper.evaluation.found import CascadeOutcome, CleanOutcome, Found, Passes, wrong_unless
from temper.evaluation.passes import CountedModel, HeldModel, held_still
from temper.evaluation.plan import EvaluationPlan
from temper.seeds import derive_seed


def evaluate_chunk(
    model: nn.Module,
    data: LabelledImages,
    kept: Tensor,
    plan: EvaluationPlan,
    index: int,
    device: torch.device,
    on_progress: OnProgress | None = None,
) -> Found:
    """Everything that ``plan`` asks for on chunk number ``index``, whose images are ``data``.

    ``kept`` (N,) bool: the images whose adversarial examples are kept. The model is held still and left
    exactly as it was.
    """
    started = time.perf_counter()
    few = data.images[: min(8, plan.batch_size)].to(device).float() / 255
    with held_still(model, few) as held:
        clean = answer_clean(held.model, data, plan.batch_size, device)
        cascades = _run(held, data, clean, kept, plan, index, device, on_progress)
    passes = Passes(held.num_forward, held.num_backward, held.num_not_finite, time.perf_counter() - started)
    return Found(clean, cascades, passes)


def _run(
    held: HeldModel,
    data: LabelledImages,
    clean: CleanOutcome,
    kept: Tensor,
    plan: EvaluationPlan,
    index: int,
    device: torch.device,
    on_progress: OnProgress | None,
) -> list[CascadeOutcome]:
    done: list[CascadeOutcome] = []
    for one in plan.cascades:
        outcome = CascadeOutcome.begin(one.threat, one.suite.name, clean, data.images, kept)
        # In the order of the plan the last of the same norm is the largest ball inside this one.
        if done and done[-1].threat.norm == one.threat.norm:
            outcome.carry(done[-1])
        members = one.suite.members_for(clean.logits.shape[1])
        seed, batching = derive_seed(plan.seed, "chunk", index), Batching(plan.batch_size, device)
        run_cascade(held, data, outcome, members, seed=seed, batching=batching, on_progress=on_progress)
        done.append(outcome)
    return done


@torch.no_grad()
def answer_clean(
    model: CountedModel, data: LabelledImages, batch_size: int, device: torch.device
) -> CleanOutcome:
    """The model's answers to the images as they are."""
    parts = []
    for start in range(0, len(data.images), batch_size):
        logits, finite = model.answer(data.images[start : start + batch_size].to(device).float() / 255)
        labels = data.labels[start : start + batch_size]
        parts.append((wrong_unless(finite.cpu(), logits.float().cpu(), labels), finite.cpu()))
    return CleanOutcome(data.labels, *(torch.cat(same) for same in zip(*parts, strict=True)))
