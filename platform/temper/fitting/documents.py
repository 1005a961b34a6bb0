"""The recipe and the search space of a fit: those that come with temper, with what was found and chosen."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from temper.data import Fit
from temper.fitting.look import Look
from temper.fitting.plan import BATCH_SIZE, FitPlan
from temper.fitting.request import FitRequest
from temper.search import SearchSpace, load_space
from temper.seeds import derive_seed
from temper.shipped import example
from temper.spec import apply_overrides, parse_ratio, read_yaml

ADVERSARY, ALPHA = "objective.adversary", "objective.alpha"
THREAT_OF_SPACE = 2 / 255
"""What the strengths in the shipped spaces are strengths of."""
FEWER_BATCHES = 4
"""Batches of an epoch, below which they are made smaller."""


def fit_document(
    request: FitRequest,
    look: Look,
    shards: Path,
    source: Path | None,
    *,
    backbone: str,
    weights: str | None,
    image_size: int,
    fit: Fit = "pad",
) -> dict[str, Any]:
    """The recipe of the hardened model, but for its epochs."""
    is_trained = weights is not None
    document = read_yaml(example(f"recipes/{'fit' if is_trained else 'fit_random'}.yaml"))
    factor = request.eps / number(document["threat"]["eps"])
    metric = "val/target/robust_balanced_acc" if look.is_imbalanced else "val/target/robust_acc"
    changes: dict[str, Any] = {
        "name": _name(look.name),
        "seed": request.seed,
        "threat": request.threat(look.channels).model_dump(mode="json"),
        "data.target": str(shards),
        "data.image_size": image_size,
        "data.fit": fit,
        "data.batch_size": batch_size(look.num_train),
        "data.sampling": "balanced" if look.is_imbalanced else "uniform",
        "model": {"backbone": backbone, "weights": weights},
        ADVERSARY: within(request, document["objective"]["adversary"], factor),
        "validation.metric": metric,
    }
    if source is not None:
        changes["data.source"] = str(source)
        if not is_trained:
            changes["pretrain"] = {"epochs": 1}
    return apply_overrides(document, changes)


def planned_document(document: Mapping[str, Any], plan: FitPlan) -> dict[str, Any]:
    """The same with its epochs, and as many test images as there is time for."""
    changes = {
        "epochs": plan.hardened_epochs,
        "validation.every_epochs": plan.every_epochs(is_hardened=True),
        "evaluation.max_images": plan.test_images,
    }
    return apply_overrides(document, changes)


def fit_space(request: FitRequest, look: Look, plan: FitPlan, *, has_source: bool) -> SearchSpace:
    """The first ``plan.num_hardened`` points of the space, and the plain run beside them."""
    path = _space_path(has_source)
    document = read_yaml(path)
    factor = request.eps / THREAT_OF_SPACE
    parameters = dict(document["parameters"])
    adversaries, alphas = parameters[ADVERSARY]["choice"], parameters.get(ALPHA, {"choice": [0.0]})["choice"]
    if plan.num_hardened < 2 * len(alphas):
        alphas = alphas[:1]
    kept = adversaries[: max(1, plan.num_hardened // len(alphas))]
    parameters[ADVERSARY] = {"choice": [within(request, one, factor) for one in kept]}
    if has_source:
        parameters[ALPHA] = {"choice": alphas}
    end = "balanced_acc" if look.is_imbalanced else "acc"
    plain = f"val/target/{'balanced_acc' if look.is_imbalanced else 'clean_acc'}"
    baseline = {
        **document["baseline"],
        "epochs": plan.plain_epochs,
        "validation.every_epochs": plan.every_epochs(is_hardened=False),
        "validation.metric": plain,
    }
    changes = {
        "seed": derive_seed(request.seed, "fit"),
        "metric": f"val/target/robust_{end}",
        "max_minutes": plan.max_sweep_s / 60,
        "baseline": baseline,
        "parameters": parameters,
    }
    return load_space(path, changes)


def num_points(has_source: bool) -> int:
    """Hardened trainings that the search space offers."""
    total = 1
    for parameter in read_yaml(_space_path(has_source))["parameters"].values():
        total *= len(parameter["choice"])
    return total


def within(request: FitRequest, adversary: Mapping[str, Any], factor: float) -> dict[str, Any]:
    """An adversary of the shipped files, as strong within the threat model asked for as it was in theirs."""
    eps = factor * number(adversary["eps"])
    return {**adversary, "norm": request.norm, "eps": eps}


def number(value: object) -> float:
    """A number of a YAML file that may be a ratio."""
    found = parse_ratio(value)
    assert isinstance(found, int | float)
    return float(found)


def batch_size(num_train: int) -> int:
    """That of the recipe, or less where there are few images."""
    return min(BATCH_SIZE, max(2, num_train // FEWER_BATCHES))


def _space_path(has_source: bool) -> Path:
    return example(f"search_spaces/{'fit_source' if has_source else 'fit'}.yaml")


def _name(name: str) -> str:
    """A recipe's name for a set of images."""
    plain = re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-._")
    return plain[:80] or "fit"
