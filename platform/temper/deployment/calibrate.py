"""Calibrating a run after its training."""

from pathlib import Path

from temper.deployment.classifier import ALLOWED, Run
from temper.errors import UsageError
from temper.records import Calibration, RunFolder, write_atomic
from temper.run.material import Material
from temper.run.rejection import calibrate_on
from temper.run.run_target import RunTarget
from temper.storage import UNREAD, exists, fetched, mirrored, named


def calibrate(run: str | Path, *, coverage: float = 0.95) -> Calibration:
    """Fit a temperature and thresholds to the run's validation images, into its ``calibration.json``.

    ``coverage`` is the share of them that each threshold lets pass. A former calibration is replaced; the
    same run gives the same one again.

    Raises:
        UsageError: no run there, or a ``coverage`` that is no share.
        TemperError: the run is not finished, or its images are gone or changed.
    """
    path = Path(run)
    if not 0 < coverage < 1:
        raise UsageError(f"coverage: a share of the validation images, between 0 and 1; got {coverage:g}")
    if not exists(path / "recipe.yaml"):
        raise UsageError(f"{named(path)}: no run here; {ALLOWED.partition(',')[0]}")
    opened = Run.open(fetched(path))
    target = RunTarget.of(opened.folder, opened.recipe, opened.state)
    material = Material(coverage, target.images("target", "val"), [], target.settings.batch_size)
    calibration = calibrate_on(target, material)
    with mirrored(path, without=UNREAD) as folder:
        write_atomic(RunFolder(folder).calibration, calibration.model_dump_json(indent=2) + "\n")
    return calibration
