"""External models: the function that makes one, and its identity."""

import importlib
import importlib.util
import sys
from dataclasses import dataclass
from functools import partial
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import CodeType, ModuleType
from typing import Literal, Self

from pydantic import Field, model_validator
from torch import Tensor, nn

from temper.data import Fit, FurtherTests, ImageView, ShardSet, Split, load_images
from temper.errors import ModelError, RecipeError
from temper.evaluation import EvaluationSpec
from temper.evaluation.fresh import Fresh
from temper.host import choose_device, use_cpu
from temper.models import ModelSpec, TaskModel, build_model, start_classes
from temper.run.external_code import digest_of_code
from temper.run.target import Claim, EvaluationTarget, Opener, data_record
from temper.run.test_sets import chosen_from, open_tests
from temper.spec import Spec, Threat
from temper.storage import Place


class ExternalModelSpec(Spec):
    """What ``temper evaluate module:function`` evaluates, and how."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")
    model: str
    """``module:function`` or ``path/to/file.py:function``; the function returns a torch module, images
    (B,3,H,W) in [0,1] to logits (B,C) of the shards' classes, in their order. Or a weights file of
    ``backbone``, with its classifier.
    """
    backbone: str | None = None
    shards: Place
    image_size: int = Field(ge=8, le=1024)
    fit: Fit = "pad"
    split: Split = "test"
    tests: FurtherTests = Field(default_factory=dict)
    """Further test sets by name: shards of the same classes."""
    threat: Threat
    evaluation: EvaluationSpec = EvaluationSpec()
    seed: int = Field(default=0, ge=0, lt=2**31)
    use_gpu: bool | Literal["auto"] = "auto"
    cpus_per_worker: int = Field(default=1, ge=1, le=256)

    @model_validator(mode="after")
    def _names_a_function(self) -> Self:
        if self.backbone is not None:
            return self
        module, _, function = self.model.rpartition(":")
        if not (module and function.isidentifier()):
            raise ValueError(
                f"model: expected module:function or file.py:function, got {self.model!r}; "
                "a weights file needs 'backbone'"
            )
        return self


@dataclass(frozen=True, kw_only=True)
class ExternalTarget(EvaluationTarget):
    """A model that was trained elsewhere, made by a function or read from a weights file."""

    spec: ExternalModelSpec

    @classmethod
    def open(cls, spec: ExternalModelSpec) -> Self:
        """The model and the images that ``spec`` names.

        Raises:
            RecipeError: no such function.
            ModelError: what it returns is no torch module, or weights that do not fit.
            ShardError: images that are missing or damaged.
        """
        spec.evaluation.plan(spec.threat, spec.seed)  # a wrong suite is told before images are read
        use_cpu(spec.cpus_per_worker)
        device = choose_device(spec.use_gpu)
        shards = ShardSet.open(spec.shards)
        tests = open_tests(spec.tests, shards, "tests")
        model, view = build_external(spec, shards.classes), ImageView(spec.image_size, spec.fit)
        images = load_images(shards, spec.split, view)
        test = chosen_from(images, spec.evaluation.max_images, spec.seed)
        claim = Claim(
            name=spec.name,
            seed=spec.seed,
            recipe=spec.model_dump(mode="json"),
            data=data_record(shards, spec.split, len(test.labels), spec.image_size),
            threat=spec.threat,
        )
        return cls(
            model=model.to(device).eval(),
            test=test,
            device=device,
            claim=claim,
            settings=spec.evaluation,
            shards={"target": shards},
            tests=tests,
            view=view,
            num_threads=spec.cpus_per_worker,
            use_gpu=spec.use_gpu,
            code=digest_of_code(spec.model) if spec.backbone is None else "",
            spec=spec,
        )

    @property
    def opener(self) -> Opener:
        """Opens the same in another process."""
        return partial(_open, self.spec, self.on_test)

    def fresh(self) -> Fresh:
        """Builds the model anew, from its file: what its module keeps is gone too."""
        return partial(build_external, self.spec, self.claim.data.classes)


def _open(spec: ExternalModelSpec, on_test: str | None) -> ExternalTarget:
    target = ExternalTarget.open(spec)
    return target if on_test is None else target.on(on_test)


def build_external(spec: ExternalModelSpec, classes: list[str]) -> nn.Module:
    """What ``spec`` names, for shards of ``classes``.

    Raises:
        RecipeError: no such function.
        ModelError: what it returns is no torch module; weights that do not fit, or without a classifier for
            so many classes.
    """
    if spec.backbone is None:
        return build_foreign(spec.model)
    found = start_classes(spec.model, spec.backbone)
    if found is None or len(found) != len(classes):
        has = "no classifier" if found is None else f"a classifier of {len(found)} classes"
        raise ModelError(f"{spec.model}: has {has}, the shards have {len(classes)} classes")
    built = ModelSpec(backbone=spec.backbone, weights=spec.model)
    heads = {"target": classes, "source": classes}
    return SourceAnswers(build_model(built, heads, image_size=spec.image_size, seed=spec.seed))


class SourceAnswers(nn.Module):
    """The source head of a model, which is the one that a weights file fills."""

    def __init__(self, model: TaskModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.model(images, task="source")
        return logits


def build_foreign(name: str) -> nn.Module:
    """Call the function that ``module:function`` or ``file.py:function`` names.

    Raises:
        RecipeError: no such module, file or function.
        ModelError: it fails, or does not return a torch module.
    """
    where, _, function = name.rpartition(":")
    module = _import(where)
    build = getattr(module, function, None)
    if not callable(build):
        raise RecipeError(f"model: {where} has no function '{function}'")
    try:
        model = build() if not isinstance(build, nn.Module) else build
    except Exception as problem:
        raise ModelError(f"{name}: the function failed ({type(problem).__name__}: {problem})") from problem
    if not isinstance(model, nn.Module):
        raise ModelError(
            f"{name}: expected a torch.nn.Module (images in [0,1] to logits), got {type(model).__name__}"
        )
    return model


class _AsItStands(SourceFileLoader):
    """Compiles the file anew: a kept ``.pyc`` of the same second and size would pass for it."""

    def get_code(self, fullname: str) -> CodeType:
        return self.source_to_code(self.get_data(self.path), self.path)


def _import(where: str) -> ModuleType:
    try:
        if not where.endswith(".py"):
            return importlib.import_module(where)
        path = Path(where)
        if not path.is_file():
            raise RecipeError(f"model: {where}: no such file")
        loader = _AsItStands(path.stem, str(path))
        spec = importlib.util.spec_from_file_location(path.stem, path, loader=loader)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        # Beside the file's own helpers, as if it had been run.
        sys.path.insert(0, str(path.resolve().parent))
        try:
            spec.loader.exec_module(module)
        finally:
            sys.path.remove(str(path.resolve().parent))
        return module
    except RecipeError:
        raise
    except Exception as problem:
        raise RecipeError(
            f"model: {where} cannot be imported ({type(problem).__name__}: {problem})"
        ) from problem
