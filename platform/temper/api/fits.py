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
    """Shards, a plain and a hardened model, their evaluation and a page, from class folders ``images``.

    Everything goes into ``out`` (``runs/NAME-fit``), where the same call resumes if it was interrupted. What
    is left out is chosen by what the images are like and by what is measured on this machine within
    ``minutes``. ``eps`` is in pixel units of [0,1], or a text such as ``2/255``; ``weights`` are as in a
    recipe, or ``random``; ``source`` are images of a task to start from. ``reading`` says how image
    files are read and labelled, as in ``Reading(labels="labels.csv")``. ``watch`` tells how far it is.

    Raises:
        TemperError: images, network or time that cannot be used, before anything is trained.
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
