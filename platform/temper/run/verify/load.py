"""Opening a record's model and images again."""

from temper.errors import RecordError, TemperError
from temper.evaluation import EvaluationSpec
from temper.models import count_params
from temper.recipe import build_recipe
from temper.records import EvaluationRecord, RunFolder, hash_of_recipe
from temper.run.external_model import ExternalModelSpec, ExternalTarget
from temper.run.run_target import RunTarget
from temper.run.target import EvaluationTarget
from temper.spec import read_yaml, validate
from temper.storage import beside, exists, from_run
from temper.training import read_state
from temper.verification import Check, Evidence, check_of, differences, is_run


def reopen(evidence: Evidence, model: str | None) -> tuple[EvaluationTarget, Check] | str:
    """Open the record's model and images, and check the model against it; or say why that cannot be done.

    Raises:
        TemperError: it should be there, but is missing, damaged, or another one.
    """
    if is_run(evidence.record):
        return _reopen_run(evidence)
    recipe = evidence.record.recipe
    if "shards" not in recipe:
        return "the model was evaluated on arrays in memory, which cannot be loaded again"
    if model is None:
        return "the model was trained elsewhere; give --model module:function"
    return _reopen_external(evidence, model)


def _reopen_run(evidence: Evidence) -> tuple[RunTarget, Check]:
    record = evidence.record
    if "checkpoint" not in record.files:
        raise RecordError(f"{evidence.path}: names no checkpoint")
    run = RunFolder(beside(evidence.folder, record.files["checkpoint"].path).parent.parent)
    recipe, state = build_recipe(record.recipe, where=str(evidence.path)), read_state(run.checkpoint)
    target = RunTarget.of(run, recipe, state)
    problems = [
        *differences("model.num_params", record.model.num_params, count_params(target.model)),
        *differences("model.num_trained_params", record.model.num_trained_params, state.num_trained_params),
        *differences(
            "model.adapter",
            record.model.adapter,
            recipe.model.adapter.label if recipe.model.adapter else None,
        ),
        *differences("model.adapter_ranks", record.model.adapter_ranks, state.adapter_ranks),
        *differences("cost.num_train_forward", record.cost.num_train_forward, state.passes.forward),
        *differences("cost.num_train_backward", record.cost.num_train_backward, state.passes.backward),
    ]
    if hash_of_recipe(read_yaml(run.recipe)) != state.recipe_hash:
        problems.append(f"{run.checkpoint} was trained with another recipe than {run.recipe}")
    return target, check_of("model", problems, f"{record.model.num_params} parameters, as described")


def _reopen_external(evidence: Evidence, model: str) -> tuple[ExternalTarget, Check]:
    record = evidence.record
    document = {**record.recipe, "model": model}
    if ":" in model:
        document["backbone"] = None
    spec = validate(ExternalModelSpec, document, str(evidence.path))
    if not exists(spec.shards):
        spec = spec.model_copy(update={"shards": from_run(spec.shards, evidence.folder)})
    tests = {name: one if exists(one) else from_run(one, evidence.folder) for name, one in spec.tests.items()}
    spec = spec.model_copy(update={"tests": tests})
    target = ExternalTarget.open(spec)
    found = target.origin(record.balanced_acc)
    problems = [
        *differences("model.num_params", record.model.num_params, found.model.num_params),
        *differences("model.backbone", record.model.backbone, found.model.backbone),
        *differences("recipe_hash", record.recipe_hash, found.recipe_hash),
    ]
    return target, check_of("model", problems, f"{found.recipe_hash}, the same weights")


def check_suite(record: EvaluationRecord, settings: EvaluationSpec, num_classes: int) -> Check | str:
    """Whether the record's suite and its members are those of that name; or why that cannot be said."""
    try:
        suite = settings.plan(record.threat, record.seed).main.suite
    except TemperError as problem:
        return f"the suite: {problem}"
    if (suite.name, suite.version) != (record.suite.name, record.suite.version):
        if suite.name == record.suite.name:
            return f"the suite: version {record.suite.version}, this temper has {suite.version}"
        problems = [f"suite.name is {record.suite.name!r} in the record, its recipe says {suite.name!r}"]
        return check_of("suite", problems, "")
    own = [attack for attack in record.attacks if not attack.name.startswith(("carried", "gate"))]
    expected = [
        {"name": member.name, "settings": member.model_dump(mode="json")}
        for member in suite.members_for(num_classes)
    ]
    claimed = [{"name": attack.name, "settings": attack.settings} for attack in own]
    problems = [
        *differences("suite", record.suite, suite.record),
        *differences("attacks", claimed, expected),
    ]
    return check_of("suite", problems, f"{suite.name} version {suite.version}, {suite.hash}")
