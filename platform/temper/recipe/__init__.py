"""A recipe: the complete and only description of one experiment."""

from temper.recipe.derived import pretrain_recipe, probe_recipe
from temper.recipe.parts import (
    CheckpointSpec,
    ComputeSpec,
    Metric,
    PretrainSpec,
    ValidationSpec,
    WorkersSpec,
)
from temper.recipe.recipe import Recipe, build_recipe, contradictions, load_recipe

__all__ = [
    "CheckpointSpec",
    "ComputeSpec",
    "Metric",
    "PretrainSpec",
    "Recipe",
    "ValidationSpec",
    "WorkersSpec",
    "build_recipe",
    "contradictions",
    "load_recipe",
    "pretrain_recipe",
    "probe_recipe",
]
