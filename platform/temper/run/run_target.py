"""A finished run as the target of an evaluation."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Self

from temper import host
from temper.advice import Facts
from temper.data import Images, Split
from temper.errors import CheckpointError, RecipeError
from temper.evaluation import Evaluation, EvaluationSpec
from temper.evaluation.evaluate import Relatives
from temper.evaluation.rejection import Unlike
from temper.models import TaskModel, count_params
from temper.recipe import Recipe
from temper.records import (
    OF_EVALUATION,
    OF_EVALUATION_DATA,
    EvaluationRecord,
    ModelRecord,
    RunFolder,
    of_training,
    sha256_of,
)
from temper.run.facts import course_of, plain_sibling
from temper.run.material import Material
from temper.run.open_data import open_data_of_run
from temper.run.start import Start, build_start, images_of
from temper.run.target import Claim, EvaluationTarget, Origin, data_record
from temper.run.test_sets import chosen_from
from temper.spec import content_hash
from temper.storage import fetched, from_run, portable
from temper.tracking import build_evaluation_tracker
from temper.training import TrainState, load_best, read_state, recipe_of


@dataclass(frozen=True, kw_only=True)
class RunTarget(EvaluationTarget):
    """The best checkpoint of a finished run, on the test split of its target."""

    model: TaskModel = field(repr=False)
    run: RunFolder
    recipe: Recipe
    state: TrainState
    overrides: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def open(cls, path: Path, overrides: Mapping[str, Any] | None = None) -> Self:
        """The run folder ``path``, with its recipe changed by ``overrides``.

        Raises:
            CheckpointError: no checkpoint here, or of other images.
            RecipeError: a recipe that cannot be read, or changed so.
            ShardError: the images are gone.
        """
        run = RunFolder(fetched(path))
        state = read_state(run.checkpoint)
        recipe = _recipe_for(run, state, overrides or {})
        recipe.evaluation.plan(recipe.threat, recipe.seed)  # a wrong suite is told before images are read
        return cls.of(run, recipe, state, overrides or {})

    @classmethod
    def of(
        cls, run: RunFolder, recipe: Recipe, state: TrainState, overrides: Mapping[str, Any] | None = None
    ) -> Self:
        """What was read of a run, with its images and its weights."""
        host.use_cpu(recipe.workers.cpus_per_worker)
        data = open_data_of_run(recipe, run.path, state.fingerprints)
        if data.fingerprints != state.fingerprints:
            raise CheckpointError(f"{run.path}: the shards have changed since this run was trained")
        device = host.choose_device(recipe.workers.use_gpu)
        model = build_start(recipe, state.classes, None)
        load_best(run, state, model)
        images = images_of(recipe, data.shards, "target", "test")
        test = chosen_from(images, recipe.evaluation.max_images, recipe.seed)
        claim = Claim(
            name=recipe.name,
            seed=recipe.seed,
            recipe=recipe.resolved(),
            data=data_record(data.shards["target"], "test", len(test.labels), recipe.data.image_size),
            threat=recipe.threat.of_evaluation,
        )
        return cls(
            model=model.to(device).eval(),
            test=test,
            device=device,
            claim=claim,
            settings=_beside(run, recipe.evaluation),
            shards=data.shards,
            tests=data.tests,
            view=recipe.data.view,
            num_threads=recipe.workers.cpus_per_worker,
            use_gpu=recipe.workers.use_gpu,
            run=run,
            recipe=recipe,
            state=state,
            overrides=overrides or {},
        )

    @cached_property
    def start(self) -> Start:
        """What the run started from."""
        return Start.open(self.run, self.recipe, self.state, self.shards, self.test, self.device)

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the weights, as a calibration names them."""
        return sha256_of(self.run.checkpoint / "model.safetensors")

    @property
    def identity(self) -> dict[str, str]:
        """All that the outcome of a chunk depends on, but for the plan."""
        return {
            "checkpoint": self.digest,
            "images": self.shards["target"].fingerprint,
            "rows": content_hash(self.test.rows.tolist()),
            "image_size": str(self.recipe.data.image_size),
        }

    @property
    def opener(self) -> "OpenRun":
        """Opens the same in another process."""
        return OpenRun(portable(self.run.path), self.overrides, self.on_test)

    def images(self, task: str, split: Split) -> Images:
        """A split of a task, as the model sees it."""
        return images_of(self.recipe, self.shards, task, split)

    def relatives(self) -> Relatives:
        """The start with a linear probe."""
        return self.start.relatives()

    def material(self) -> Material | None:
        """Of rejection; where the recipe names nothing unlike the target, the source is."""
        found = super().material()
        if found is not None and not found.unlike and "source" in self.shards:
            name = self.shards["source"].manifest.name
            found.unlike.append(Unlike("out of distribution", name, self.images("source", "test").images))
        return found

    def origin(self, balanced_acc: float) -> Origin:
        """The recipe, the source, the start and the training; ``balanced_acc`` is what it came to."""
        recipe, state, run = self.recipe, self.state, self.run
        source, size = self.shards.get("source"), recipe.data.image_size
        source_acc = self.start.source_accuracy(self.model)
        lineage = {"lineage": run.lineage} if run.lineage.exists() else {}
        return Origin(
            recipe_hash=recipe.hash,
            model=ModelRecord(
                backbone=recipe.model.backbone,
                num_params=count_params(self.model),
                num_trained_params=state.num_trained_params,
                adapter=recipe.model.adapter.label if recipe.model.adapter else None,
                adapter_ranks=state.adapter_ranks,
            ),
            source=None if source is None else data_record(source, "test", len(source.rows("test")), size),
            source_acc=source_acc,
            source_retention=self.start.retention(source_acc),
            adaptability=self.start.adaptability(balanced_acc),
            training=state,
            files={"checkpoint": run.checkpoint / "model.safetensors", "recipe": run.recipe, **lineage},
        )

    def informed(self, facts: Facts, record: EvaluationRecord) -> Facts:
        """``facts`` for advice, with how the training went, the probe, and a sibling that is not hardened."""
        return replace(
            facts,
            probe_correct=self.start.probe_correct(),
            course=course_of(self.run, self.state, self.shards["target"], self.recipe.validation.max_images),
            has_auto_lr=True,
            plain=plain_sibling(self.settings.siblings, record),
        )

    def track(self, written: RunFolder, evaluation: Evaluation) -> None:
        """Show the numbers and the figure wherever the recipe is tracked; a failure harms nothing."""
        recipe = self.recipe
        tracker = build_evaluation_tracker(
            recipe.tracking, written, name=recipe.name, config=recipe.resolved()
        )
        if written.figure.exists():
            tracker.image("test/target/adversarial", written.figure)
        tracker.summary(
            {
                "test/target/clean_acc": evaluation.clean_acc.value,
                "test/target/robust_acc": evaluation.robust_acc.value,
            }
        )
        tracker.finish()


@dataclass(frozen=True)
class OpenRun:
    """Opens a finished run, in whichever process it is called."""

    path: Path
    overrides: Mapping[str, Any]
    on_test: str | None = None

    def __call__(self) -> RunTarget:
        target = RunTarget.open(self.path, self.overrides)
        return target if self.on_test is None else target.on(self.on_test)


def _beside(run: RunFolder, asked: EvaluationSpec) -> EvaluationSpec:
    """``asked`` with its places where they are: those that the caller does not see, beside the run."""

    def found(place: Path) -> Path:
        return place if place.exists() else from_run(place, run.path)

    rejection = asked.rejection
    if rejection is not None and rejection.ood is not None:
        rejection = rejection.model_copy(update={"ood": found(rejection.ood)})
    siblings = tuple(found(place) for place in asked.siblings)
    return asked.model_copy(update={"siblings": siblings, "rejection": rejection})


def _recipe_for(run: RunFolder, state: TrainState, overrides: Mapping[str, Any]) -> Recipe:
    """The recipe of ``run``, evaluated otherwise.

    Raises:
        RecipeError: it would say that the run was trained otherwise, too.
    """
    recipe = recipe_of(run, state, overrides)
    if overrides and of_training(recipe_of(run, state).resolved()) != of_training(recipe.resolved()):
        allowed = [*OF_EVALUATION, *(f"data.{name}" for name in OF_EVALUATION_DATA)]
        changed = [
            name for name in overrides if name not in allowed and name.partition(".")[0] not in OF_EVALUATION
        ]
        raise RecipeError(
            f"{', '.join(changed)}: the run {run.path} is trained already, so this has no effect; "
            f"an evaluation may set {', '.join(allowed)}"
        )
    return recipe
