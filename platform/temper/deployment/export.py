"""Exporting a run: the model for other programs, with everything that is needed to use it."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Final

import torch
from safetensors.torch import save
from torch import Tensor, nn

from temper.deployment.classifier import EXPORT, WEIGHTS, Classifier, target_weights
from temper.deployment.onnx_files import missing_packages, run_onnx, to_onnx
from temper.deployment.programs import run_program, to_program
from temper.errors import CheckpointError, ModelError, UsageError
from temper.records import ExportRecord, FileRecord, Preprocessing, write_atomic
from temper.seeds import derive_seed
from temper.spec import dump_yaml
from temper.storage import exists, mirrored, named

TOLERANCE: Final = 1e-4
"""Of any logit."""
NUM_COMPARED: Final = 8
RECORD: Final = "evaluation.json"
"""The run's record, byte for byte, under a name that boards do not look for: its evidence is not here."""


@dataclass(frozen=True)
class Exported:
    """What `temper export` wrote."""

    path: Path
    """The folder: `temper predict` takes it."""
    record: ExportRecord
    """``export.json``."""
    left_out: str | None
    """Why there is no ``model.onnx``."""


def export(run: str | Path, out: str | Path, *, onnx: bool | None = None) -> Exported:
    """Write ``run`` into ``out`` as ``model.pt2`` (torch.export) and ``model.onnx``, with all that they need.

    The models answer images (B,3,S,S) in [0,1] with logits (B,C), for any B. Each is read back and asked: an
    answer further than 1e-4 from the run's ends in an error, and nothing is written. ``onnx``: ``None``
    writes it where the packages for it are installed, ``True`` demands it.

    Raises:
        UsageError: no run, or packages for ONNX that are missing.
        CheckpointError: ``out`` exists, or the run is not finished.
        ModelError: a network that cannot be exported, or that answers differently.
    """
    place, missing = Path(out), missing_packages()
    if onnx and missing:
        raise UsageError(
            f"model.onnx needs the packages {', '.join(missing)}; pip install 'temper[onnx]' installs "
            "them, or omit --onnx"
        )
    if exists(place):
        raise CheckpointError(f"{named(place)}: already exists; remove it, or choose another --out")
    opened = Classifier.open(run, use_gpu=False)
    if opened.run is None:
        raise UsageError(f"{opened.where}: already an export; give the run that it was made from")
    files, changes = _models(opened, with_onnx=onnx is not False and not missing)
    files[WEIGHTS] = save(target_weights(opened.run.weights))
    files |= _papers(opened)
    left_out = f"{', '.join(missing)} not installed" if missing and onnx is None else None
    with mirrored(place) as folder:
        for name, content in files.items():
            write_atomic(folder / name, content)
        record = _describe(opened, files, changes)
        write_atomic(folder / EXPORT, record.model_dump_json(indent=2) + "\n")
    return Exported(place, record, left_out)


class Answers(nn.Module):
    """The target logits alone, which is all that an exported model answers."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.model(images)
        return logits


def _models(opened: Classifier, *, with_onnx: bool) -> tuple[dict[str, bytes], dict[str, float]]:
    """File -> content, and file -> the largest change of a logit."""
    model = Answers(opened.model.cpu()).eval()
    generator = torch.Generator().manual_seed(derive_seed(0, "export"))
    images = torch.rand(NUM_COMPARED, *opened.view.shape, generator=generator)
    with torch.no_grad():
        expected = model(images)
    program = to_program(model, images[:2])
    files, changes = {"model.pt2": program}, {"model.pt2": _compare(run_program(program), images, expected)}
    if with_onnx:
        files["model.onnx"] = to_onnx(model, images[:2])
        changes["model.onnx"] = _compare(run_onnx(files["model.onnx"]), images, expected)
    for name, change in changes.items():
        if not change <= TOLERANCE:
            raise ModelError(
                f"{opened.where}: the exported {name} predicts differently: a logit changed by {change:.1e}, "
                f"allowed {TOLERANCE:.0e}; nothing was written"
            )
    return files, changes


def _compare(answer: Callable[[Tensor], Tensor], images: Tensor, expected: Tensor) -> float:
    """The largest change of a logit, over batches of several sizes."""
    changes = [(answer(images[:size]) - expected[:size]).abs().max() for size in (1, 3, NUM_COMPARED)]
    return float(torch.stack(changes).max())


def _papers(opened: Classifier) -> dict[str, bytes]:
    """The run's recipe, and its record where it has one."""
    assert opened.run is not None
    papers = {"recipe.yaml": dump_yaml(opened.run.recipe.resolved()).encode()}
    if opened.run.folder.record.is_file():
        papers[RECORD] = opened.run.folder.record.read_bytes()
    return papers


def _describe(opened: Classifier, files: dict[str, bytes], changes: dict[str, float]) -> ExportRecord:
    assert opened.run is not None
    digests = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
    calibration = opened.calibration
    if calibration is not None:  # it was checked to be of the run's weights, and is of the same ones here
        calibration = calibration.model_copy(update={"checkpoint": digests[WEIGHTS]})
    packages = ("temper", "torch", *(("onnx",) if "model.onnx" in files else ()))
    recipe, view = opened.run.recipe, opened.view
    return ExportRecord(
        name=opened.name,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        classes=opened.classes,
        preprocessing=Preprocessing(
            image_size=view.image_size, fit=view.fit, long_side=opened.long_side, depth=opened.depth
        ),
        model=recipe.model.model_copy(update={"weights": None, "sha256": None}).model_dump(mode="json"),
        calibration=calibration,
        recipe_hash=recipe.hash,
        data_fingerprint=opened.run.state.fingerprints["target"],
        files={name: FileRecord(path=name, sha256=digest) for name, digest in digests.items()},
        largest_change=changes,
        num_compared=NUM_COMPARED,
        packages={name: version(name) for name in packages},
    )
