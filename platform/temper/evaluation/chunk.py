"""One chunk of the images, from the clean answers through every cascade."""

import time
from collections import Counter

import torch
from torch import Tensor, nn

from temper.attacks import minimum_norm
from temper.batches import as_floats
from temper.evaluation.cascade import Batching, LabelledImages, OnProgress, run_cascade
from temper.evaluation.chunk_outcome import (
    CascadeOutcome,
    ChunkOutcome,
    CleanOutcome,
    PassCounts,
    wrong_unless,
)
from temper.evaluation.corruptions import GROUPS, Group, evaluate_corruptions
from temper.evaluation.counted_model import CountedModel, HeldModel, held_still
from temper.evaluation.plan import EvaluationPlan
from temper.evaluation.search_cache import SearchCache
from temper.seeds import derive_seed
from temper.spec import Norm

SEARCHED = 4
"""Times eps: the largest minimum norm that is searched for."""


def evaluate_chunk(
    model: nn.Module,
    data: LabelledImages,
    rows: Tensor,
    kept: Tensor,
    plan: EvaluationPlan,
    index: int,
    device: torch.device,
    on_progress: OnProgress | None = None,
) -> ChunkOutcome:
    """Everything that ``plan`` asks for on chunk number ``index``, whose images are ``data``.

    ``rows`` (N,) int64: the images' own numbers; ``kept`` (N,) bool: those whose adversarial examples are
    kept. The model is frozen meanwhile and restored exactly.
    """
    started = time.perf_counter()
    few = as_floats(data.images[: min(8, plan.batch_size)], device)
    with held_still(model, few) as held:
        clean = answer_clean(held.model, data, plan.batch_size, device)
        attacked = data.attacked_within(plan.main.threat)
        found = ChunkOutcome(
            clean, _run(held, attacked, clean, kept, plan, index, device, on_progress), PassCounts()
        )
        if plan.minimum_norms:
            found.minimum_norms = _minimum_norms(held, attacked, found, plan, index, device)
        for group in plan.corruptions:
            found.corrupted[group] = _corrupted(held, data, rows, group, plan, device)
    found.passes = PassCounts(
        held.num_forward, held.num_backward, held.num_not_finite, time.perf_counter() - started
    )
    return found


def _minimum_norms(
    held: HeldModel,
    data: LabelledImages,
    found: ChunkOutcome,
    plan: EvaluationPlan,
    index: int,
    device: torch.device,
) -> Tensor:
    """(N,) by bisection for each image, up to ``SEARCHED`` times eps, and what the attacks came upon."""
    threat = plan.main.threat
    norm: Norm = threat.norm  # type: ignore[assignment]  # settings admit no other
    main = next(one for one in found.cascades if one.threat == threat)
    nearest = torch.where(main.distance.isnan(), torch.inf, main.distance)
    generator = torch.Generator(device).manual_seed(derive_seed(plan.seed, "minimum norm", index))
    for start in range(0, len(data.labels), plan.batch_size):
        part = slice(start, start + plan.batch_size)
        images, labels = as_floats(data.images[part], device), data.labels[part].to(device)
        upper = SEARCHED * threat.eps
        distance, _ = minimum_norm(held.folded, images, labels, norm, upper, generator=generator)
        nearest[part] = torch.minimum(nearest[part], distance.cpu())
    return nearest.masked_fill(~found.clean.correct, 0.0)


def _corrupted(
    held: HeldModel,
    data: LabelledImages,
    rows: Tensor,
    group: Group,
    plan: EvaluationPlan,
    device: torch.device,
) -> Tensor:
    result = evaluate_corruptions(
        held.model,
        data.images,
        data.labels,
        rows,
        kinds=list(GROUPS[group]),
        seed=plan.seed,
        batch_size=plan.batch_size,
        device=device,
    )
    return torch.from_numpy(result.correct)


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
    times = Counter(one.threat.norm for one in plan.cascades)
    searches = {norm: SearchCache() for norm, count in times.items() if count > 1}
    for one in plan.cascades:
        outcome = CascadeOutcome.begin(one.threat, one.suite.name, clean, data.images, kept)
        # In the order of the plan the last of the same norm is the largest ball inside this one.
        if done and done[-1].threat.norm == one.threat.norm:
            outcome.carry(done[-1])
        members = one.suite.members_for(clean.logits.shape[1])
        seed, batching = derive_seed(plan.seed, "chunk", index), Batching(plan.batch_size, device)
        run_cascade(
            held,
            data,
            outcome,
            members,
            seed=seed,
            batching=batching,
            searches=searches.get(one.threat.norm),
            on_progress=on_progress,
        )
        done.append(outcome)
    return done


@torch.no_grad()
def answer_clean(
    model: CountedModel, data: LabelledImages, batch_size: int, device: torch.device
) -> CleanOutcome:
    """The model's answers to the clean images."""
    parts = []
    for start in range(0, len(data.images), batch_size):
        logits, finite = model.answer(as_floats(data.images[start : start + batch_size], device))
        labels = data.labels[start : start + batch_size]
        parts.append((wrong_unless(finite.cpu(), logits.float().cpu(), labels), finite.cpu()))
    return CleanOutcome(data.labels, *(torch.cat(same) for same in zip(*parts, strict=True)))
