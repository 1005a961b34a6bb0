"""Whether a record, the recipe inside it and ``recipe.yaml`` speak of the same experiment."""

from collections.abc import Iterator

from temper.errors import RecipeError
from temper.records import EvaluationRecord, hash_of_recipe, of_training
from temper.spec import read_yaml
from temper.storage import beside
from temper.verification.evidence import Evidence
from temper.verification.record import Check, check_of, differences


def is_run(record: EvaluationRecord) -> bool:
    """Whether the model was trained by temper."""
    return "objective" in record.recipe


def check_recipe(evidence: Evidence) -> Check:
    """The recipe's hash, the recipe beside the record, and what the record repeats of it."""
    record = evidence.record
    problems = [*_repeated(record)]
    if not is_run(record):
        return check_of("recipe", problems, "a model from elsewhere; what the record repeats of its settings")
    problems += differences("recipe_hash", record.recipe_hash, hash_of_recipe(record.recipe))
    problems += _beside(evidence)
    return check_of("recipe", problems, f"{record.recipe_hash}, as trained")


def _repeated(record: EvaluationRecord) -> Iterator[str]:
    recipe = record.recipe
    threat = recipe.get("threat", record.threat.model_dump())
    said = {
        "name": recipe.get("name", record.name),
        "seed": recipe.get("seed", record.seed),
        "threat": {name: threat[name] for name in ("norm", "eps", "channels") if name in threat},
    }
    for name, value in said.items():
        yield from differences(name, getattr(record, name), value)
    size = recipe["data"].get("image_size") if is_run(record) else recipe.get("image_size")
    if size is not None:
        yield from differences("data.image_size", record.data.image_size, size)
    if is_run(record):
        yield from differences("model.backbone", record.model.backbone, recipe["model"].get("backbone"))


def _beside(evidence: Evidence) -> Iterator[str]:
    record = evidence.record
    if "recipe" not in record.files:
        yield "files: names no recipe, but the model was trained by temper"
        return
    try:
        trained = read_yaml(beside(evidence.folder, record.files["recipe"].path))
    except RecipeError as problem:
        yield str(problem)
        return
    yield from differences("recipe", of_training(record.recipe), of_training(trained))
