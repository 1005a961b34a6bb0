"""A recipe: one experiment, complete. The only description of a run that exists."""

from temper.recipe.parts import (
    CheckpointSpec,
    ComputeSpec,
    Metric,
    PretrainSpec,
    ValidationSpec,
    WorkersSpec,
)
from temper.recipe.recipe import Recipe, build_recipe, contradictions, load_recipe, pretrain_recipe

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
]
