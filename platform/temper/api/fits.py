"""From class folders to a model, from code."""

from pathlib import Path

from temper.fitting import FitRequest, FitResult, FitWatch, Reading, run_fit
from temper.spec import Norm, validate

__all__ = ["FitResult", "Reading", "fit"]


def fit(
    images: str | Path,
    out: str | Path | None = None,
    *,
    eps: float | str = 2 / 255,
    norm: Norm = "linf",
    minutes: float = 20.0,
    size: int | None = None,
    backbone: str | None = None,
    weights: str | None = None,
    source: str | Path | None = None,
    seed: int = 0,
    reading: Reading | None = None,
    watch: FitWatch | None = None,
    verbose: bool = False,
) -> FitResult:
    """Go from class folders ``images`` to a plain and a hardened model, their evaluation and a page.

    Everything goes into ``out`` (default ``runs/NAME-fit``), where the same call resumes an interrupted fit.
    Arguments that are left out are chosen from the images and from measurements on this machine, within
    ``minutes``. ``eps`` is in pixel units of [0,1], or a string such as ``2/255``; ``weights`` are as in a
    recipe, or ``random``; ``source`` holds images of a source task. ``reading`` says how image files are read
    and labelled, as in ``Reading(labels="labels.csv")``. ``watch`` reports progress.

    Raises:
        TemperError: the images, the network or the time cannot be used; raised before training.
        Interrupted: by Ctrl-C; the same call resumes.
    """
    folder = Path(out) if out is not None else Path("runs") / f"{Path(images).resolve().name}-fit"
    document = {
        "images": str(images),
        "eps": eps,
        "norm": norm,
        "minutes": minutes,
        "size": size,
        "backbone": backbone,
        "weights": weights,
        "source": None if source is None else str(source),
        "seed": seed,
        "reading": reading or Reading(),
    }
    return run_fit(validate(FitRequest, document, "fit"), folder, watch=watch, verbose=verbose)
