"""Searches that no eps changes: made once for a curve, with the outcomes of one for each eps."""

from typing import Any

import foolbox
import pytest
import torch
from torch import Tensor

from temper.attacks import DeepFool, FullFGSM, SearchMember
from temper.evaluation import CascadePlan, EvaluationPlan, Suite
from temper.evaluation.cascade import LabelledImages
from temper.evaluation.chunk import evaluate_chunk
from temper.evaluation.chunk_outcome import ChunkOutcome
from temper.evaluation.counted_model import CountedModel
from temper.evaluation.members import AnyMember, CWMember, DDNMember, EADMember, FMNMember
from temper.evaluation.search_cache import SearchCache
from temper.spec import Threat

CPU = torch.device("cpu")
SHORT: list[tuple[AnyMember, Any, float]] = [
    (FullFGSM(), "linf", 0.1),
    (FullFGSM(), "l2", 0.8),
    (DeepFool(steps=8), "linf", 0.1),
    (DeepFool(steps=8), "l2", 0.8),
    (FMNMember(steps=10), "linf", 0.1),
    (FMNMember(steps=10), "l2", 0.8),
    (FMNMember(steps=10), "l0", 6),
    (DDNMember(steps=10), "l2", 0.8),
    (CWMember(searches=2, steps=10), "l2", 0.8),
    (EADMember(searches=2, steps=10), "l1", 4.0),
]


@pytest.mark.parametrize(("member", "norm", "eps"), SHORT, ids=str)
def test_a_search_serves_every_eps(member: SearchMember, norm: Any, eps: float, hardened_digits: Any) -> None:
    network, images, labels = hardened_digits
    images, labels, rows = images[:12], labels[:12], torch.arange(12)
    model, searches = CountedModel(network).eval(), SearchCache()
    first = searches.run(member, model, images, labels, Threat(norm=norm, eps=eps), rows, 12)
    spent = model.num_forward
    assert spent > 0
    for share in (1.0, 0.5, 2.0):
        threat = Threat(norm=norm, eps=share * eps)
        found = searches.run(member, model, images, labels, threat, rows, 12)
        assert torch.equal(found, member.run(network, images, labels, threat, seed=3))
    assert model.num_forward == spent
    # Rows that are new are looked for, and the others are not.
    late = SearchCache()
    late.run(member, network, images[:5], labels[:5], Threat(norm=norm, eps=eps), rows[:5], 12)
    both = late.run(member, model, images, labels, Threat(norm=norm, eps=eps), rows, 12)
    assert 0 < model.num_forward - spent < spent
    assert (both - first).abs().max() < 1e-4


def curve(model: Any, images: Tensor, labels: Tensor, *levels: float) -> ChunkOutcome:
    suite = Suite(name="test", members=(FullFGSM(), DeepFool(steps=8, restarts=2)))
    main = CascadePlan(threat=Threat(eps=levels[0]), suite=suite)
    plan = EvaluationPlan(main=main, curve=levels[1:], seed=0)
    data = LabelledImages((images * 255).round().to(torch.uint8), labels)
    kept = torch.zeros(len(labels), dtype=torch.bool)
    return evaluate_chunk(model, data, torch.arange(len(labels)), kept, plan, 0, CPU)


def test_a_curve_leaves_standing_what_each_eps_leaves_and_searches_once(hardened_digits: Any) -> None:
    levels = (0.02, 0.06, 0.1)
    together = curve(*hardened_digits, *levels)
    alone = [curve(*hardened_digits, eps) for eps in levels]
    standing = torch.stack([one.cascades[0].standing for one in alone]).cummin(0).values
    assert torch.equal(torch.stack([one.standing for one in together.cascades]), standing)
    counts = standing.sum(1).tolist()
    assert counts[0] > counts[-1] > 0
    assert together.passes.num_backward <= alone[0].passes.num_backward
    for cascade, one in zip(together.cascades[1:], alone[1:], strict=True):
        names = [member.name for member in cascade.members]
        assert names == ["carried", *(member.name for member in one.cascades[0].members)]


@pytest.mark.parametrize(("norm", "eps"), [("linf", 0.1), ("l2", 0.8)])
def test_fgsm_steps_where_foolbox_does(norm: Any, eps: float, hardened_digits: Any) -> None:
    network, images, labels = hardened_digits
    attack = {"linf": foolbox.attacks.LinfFastGradientAttack, "l2": foolbox.attacks.L2FastGradientAttack}
    fmodel = foolbox.PyTorchModel(network, bounds=(0, 1))
    _, clipped, _ = attack[norm]()(fmodel, images, labels, epsilons=eps)
    found = FullFGSM().run(network, images, labels, Threat(norm=norm, eps=eps), seed=0)
    assert (found - clipped).abs().max() < 1e-6
