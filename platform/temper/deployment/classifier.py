"""Opening a trained model by what a user names: a run folder, a record, or the folder of an export."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from temper.data import ImageView, Manifest
from temper.data.remote_shards import read_manifest
from temper.errors import CheckpointError, RecordError, TemperError, UsageError
from temper.host import choose_device
from temper.models import ModelSpec, TaskModel, build_model, load_model_state
from temper.recipe import Recipe
from temper.records import (
    Calibration,
    Depth,
    RunFolder,
    read_calibration,
    read_export,
    read_record,
    sha256_of,
)
from temper.run.start import build_start
from temper.spec import validate
from temper.storage import beside, exists, fetched, from_run, named
from temper.training import TrainState, check_best, read_state, recipe_of

EXPORT = "export.json"
WEIGHTS = "model.safetensors"


@dataclass(frozen=True)
class Classifier:
    """A model in eval mode, and what is needed to ask it and to understand its answers."""

    where: str
    name: str
    model: TaskModel
    """Images (B,3,S,S) in [0,1] to logits (B,C) of ``classes``; S is that of ``view``."""
    classes: list[str]
    view: ImageView
    long_side: int | None
    """A longer side of an image is first reduced to this; ``None``: unknown."""
    depth: Depth | None
    """How values of more than 8 bits become 8 bits; ``None``: unknown."""
    calibration: Calibration | None
    device: torch.device
    run: "Run | None"
    """``None`` for an exported model."""

    @classmethod
    def open(cls, path: str | Path, *, use_gpu: bool = True) -> Self:
        """Open the run folder, the ``record.json``, or the folder of an export, here or in S3.

        Weights are read as safetensors into networks of ours: nothing that comes with a model is executed.

        Raises:
            UsageError: nothing there, or nothing that is a model.
            CheckpointError: a run that is not finished, or weights that are damaged or of another model.
            RecordError: a damaged record, export or calibration, or weights that are not the record's.
        """
        given = Path(path)
        if not exists(given):
            raise UsageError(f"{named(given)}: no such file or folder; {ALLOWED}")
        local = fetched(given)
        folder = local if local.is_dir() else local.parent
        device = choose_device(use_gpu)
        if (folder / EXPORT).is_file():
            return cls._of_export(folder, device)
        if local.suffix == ".json" and local.is_file():
            return cls._of_record(local, device)
        if (folder / "recipe.yaml").is_file():
            return cls._of_run(Run.open(folder), read_calibration_of(folder), device)
        raise UsageError(f"{named(given)}: not a model; {ALLOWED}")

    @classmethod
    def _of_run(cls, run: "Run", calibration: Calibration | None, device: torch.device) -> Self:
        recipe = run.recipe
        manifest = _manifest(recipe, run.folder.path)
        model = build_start(recipe, run.state.classes, None)
        load_model_state(model, run.weights)
        return cls(
            where=named(run.folder.path),
            name=recipe.name,
            model=model.to(device).eval().requires_grad_(False),
            classes=run.state.classes["target"],
            view=recipe.data.view,
            long_side=None if manifest is None else manifest.long_side[1],
            depth=run.state.depth or (None if manifest is None else manifest.depth),
            calibration=_fitting(calibration, run.weights),
            device=device,
            run=run,
        )

    @classmethod
    def _of_record(cls, path: Path, device: torch.device) -> Self:
        record = read_record(path)
        if "checkpoint" not in record.files:
            raise UsageError(
                f"{named(path)}: a model that was trained elsewhere, which only its own code can open"
            )
        checkpoint = record.files["checkpoint"]
        weights = beside(path.parent, checkpoint.path)
        if not weights.is_file():
            raise CheckpointError(f"{named(path)}: its checkpoint {named(weights)} is missing")
        found = sha256_of(weights)
        if found != checkpoint.sha256:
            raise RecordError(
                f"{named(path)}: {named(weights)} is another file: SHA-256 {found[:16]}, the record says "
                f"{checkpoint.sha256[:16]}"
            )
        folder = weights.parent.parent
        calibration = record.rejection.calibration if record.rejection else read_calibration_of(folder)
        return cls._of_run(Run.open(folder), calibration, device)

    @classmethod
    def _of_export(cls, folder: Path, device: torch.device) -> Self:
        record = read_export(folder / EXPORT)
        weights = folder / WEIGHTS
        spec = validate(ModelSpec, {**record.model, "weights": None, "sha256": None}, named(folder / EXPORT))
        size = record.preprocessing.image_size
        model = build_model(spec, {"target": record.classes}, image_size=size, seed=0)
        load_model_state(model, weights)
        return cls(
            where=named(folder),
            name=record.name,
            model=model.to(device).eval().requires_grad_(False),
            classes=record.classes,
            view=ImageView(size, record.preprocessing.fit),
            long_side=record.preprocessing.long_side,
            depth=record.preprocessing.depth,
            calibration=_fitting(record.calibration, weights),
            device=device,
            run=None,
        )


ALLOWED = "expected the folder of a finished run, its record.json, or a folder written by `temper export`"


@dataclass(frozen=True)
class Run:
    """A finished run's folder, with what it says of itself; its images are not needed."""

    folder: RunFolder
    recipe: Recipe
    state: TrainState

    @classmethod
    def open(cls, path: Path) -> Self:
        """Read it.

        Raises:
            CheckpointError: not finished, or damaged.
        """
        folder = RunFolder(path)
        state = read_state(folder.checkpoint)
        if not state.is_settled:
            raise CheckpointError(
                f"{named(path)}: this run is unfinished; run `temper train` again to resume it"
            )
        check_best(folder, state)
        return cls(folder, recipe_of(folder, state), state)

    @property
    def weights(self) -> Path:
        """Of its best epoch."""
        return self.folder.checkpoint / WEIGHTS


def read_calibration_of(folder: Path) -> Calibration | None:
    """What `temper calibrate` left in a run's folder, or else what its evaluation measured."""
    run = RunFolder(folder)
    found = read_calibration(run.calibration)
    if found is not None or not run.record.is_file():
        return found
    record = read_record(run.record)
    return record.rejection.calibration if record.rejection else None


def target_weights(path: Path) -> dict[str, Any]:
    """The tensors of a run's checkpoint without those of its source head.

    Raises:
        CheckpointError: missing or damaged.
    """
    try:
        tensors = load_file(path)
    except (OSError, SafetensorError) as problem:
        raise CheckpointError(f"{named(path)}: not a checkpoint ({problem})") from None
    return {name: tensor for name, tensor in tensors.items() if not name.startswith("heads.source.")}


def _fitting(calibration: Calibration | None, weights: Path) -> Calibration | None:
    """The calibration, which has to be of these weights.

    Raises:
        RecordError: it is of others.
    """
    if calibration is not None and sha256_of(weights) != calibration.checkpoint:
        raise RecordError(
            f"{named(weights)}: its calibration belongs to other weights; run `temper calibrate RUN` again"
        )
    return calibration


def _manifest(recipe: Recipe, folder: Path) -> Manifest | None:
    """That of the training images, where their shards are still there."""
    try:
        return Manifest.model_validate_json(read_manifest(from_run(recipe.data.target, folder)))
    except (OSError, ValueError, TemperError):
        return None
