"""A recipe: the complete and only description of one experiment."""

from temper.recipe.derived import pretrain_recipe, probe_recipe
from temper.recipe.parts import CheckpointSpec, ValidationSpec, WorkersSpec
from temper.recipe.recipe import Recipe, build_recipe, load_recipe

__all__ = [
    "CheckpointSpec",
    "Recipe",
    "ValidationSpec",
    "WorkersSpec",
    "build_recipe",
    "load_recipe",
    "pretrain_recipe",
    "probe_recipe",
]
