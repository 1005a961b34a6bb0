"""Recipes that follow from a recipe: of its start, and of the linear probe on it."""

from typing import Any

from temper.objective import Objective
from temper.optim import OptimSpec
from temper.recipe.recipe import Recipe
from temper.schedules import Full, HeadOnly


def pretrain_recipe(recipe: Recipe) -> Recipe:
    """The recipe of the start model: the same backbone trained on the source task alone."""
    assert recipe.pretrain is not None
    pretrain = recipe.pretrain
    return recipe.model_copy(
        update={
            "name": f"{recipe.name[:90]}-pretrain",
            "epochs": pretrain.epochs,
            "pretrain": None,
            "data": recipe.data.model_copy(
                update={
                    "target": recipe.data.source,
                    "source": None,
                    "batch_size": recipe.data.source_batch_size or recipe.data.batch_size,
                    "shots_per_class": None,
                    "fold": None,
                    "tests": {},
                    "sampling": "uniform",
                }
            ),
            "model": recipe.model.model_copy(update={"adapter": None, "is_binary": False, "head": None}),
            "objective": Objective(adversary=pretrain.adversary),
            "schedule": Full(),
            "optim": recipe.optim.model_copy(update={"lr": pretrain.lr or recipe.optim.lr}),
            "validation": recipe.validation.model_copy(
                # An unhardened start is not robust: nothing is to be seen there.
                update={"metric": None} | ({} if pretrain.adversary else {"steps": 0})
            ),
        }
    )


def probe_recipe(recipe: Recipe) -> Recipe:
    """The recipe of the linear probe on the start of ``recipe``, for the same images and threat model.

    It leaves out how ``recipe`` trains, so that runs with the same start share it. Where the start is
    pretrained, all that the pretraining goes by stays.
    """
    is_balanced = recipe.is_balanced
    update: dict[str, Any] = {
        "name": f"{recipe.name[:94]}-probe",
        "epochs": 1,
        "model": recipe.model.model_copy(update={"adapter": None, "head": None}),
        "objective": Objective(class_weights="balanced" if is_balanced else None),
        "schedule": HeadOnly(),
    }
    data: dict[str, Any] = {"sampling": "uniform"}
    validation: dict[str, Any] = {
        "metric": "val/target/balanced_acc" if is_balanced else "val/target/clean_acc",
        "is_asynchronous": False,
    }
    if recipe.pretrain is None:
        update["optim"] = OptimSpec()
        data |= dict.fromkeys(("augment", "mixing", "source_batch_size"))
        validation |= {"every_epochs": 1, "patience": None}
    update["data"] = recipe.data.model_copy(update=data)
    update["validation"] = recipe.validation.model_copy(update=validation)
    return recipe.model_copy(update=update)
