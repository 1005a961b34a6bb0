"""What comes with temper beside its code: recipes, search spaces, and what a job gets on a cluster."""

from collections.abc import Iterator
from pathlib import Path

import temper
from temper.errors import TemperError

PACKAGE = Path(temper.__file__).parent
PLACES = {
    "recipes": "jobs/recipes",
    "search_spaces": "search_spaces",
    "runtime_env.yaml": "jobs/runtime_env.yaml",
}
"""Where each is in ``examples`` of the package, and in the repository."""


def example(name: str) -> Path:
    """A file that comes with temper, such as ``recipes/digits.yaml``.

    Raises:
        TemperError: the installation lacks it.
    """
    top, slash, rest = name.partition("/")
    path = _origin(top) / rest if slash else _origin(top)
    if not path.exists():
        raise TemperError(f"{name}: this installation of temper lacks its examples; reinstall it")
    return path


def examples() -> Iterator[tuple[str, Path]]:
    """All of them, and the place that each has in a repository."""
    for name, place in PLACES.items():
        origin = _origin(name)
        if origin.is_dir():
            yield from ((f"{place}/{file.name}", file) for file in sorted(origin.glob("*.yaml")))
        elif origin.exists():
            yield place, origin


def _origin(name: str) -> Path:
    """Beside the code where temper is installed, else in the repository."""
    installed = PACKAGE / "examples" / name
    return installed if installed.exists() else PACKAGE.parents[1] / PLACES[name]
