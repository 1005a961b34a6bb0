"""An attack that a user wrote for one model: its result counts like that of any other member."""

import ast
import hashlib
from collections.abc import Callable
from pathlib import Path
from traceback import extract_tb
from typing import Any, ClassVar, Literal, Self

import torch
from pydantic import Field, PrivateAttr, model_validator
from torch import Tensor, nn

from temper.attacks import Member
from temper.errors import ModelError
from temper.safe_load import read_regular
from temper.spec import Geometry, Threat

MAX_BYTES = 1 << 20


class CustomMember(Member):
    """``attack``: ``file.py:function``, code of yours that runs with the evaluation.

    ``function(model, images, labels, threat, generator)`` returns perturbed images (B,3,H,W) of the
    ``images`` in [0,1], which ``model`` classifies as ``labels`` (B,); ``threat`` has ``norm`` and ``eps``,
    and all that is random is drawn from ``generator``. The file is read once: its SHA-256 stands in the
    record, and a suite of other code is another suite.
    """

    kind: Literal["custom"] = "custom"
    attack: str = Field(pattern=r"^.+\.py:[A-Za-z_][A-Za-z0-9_]*$")
    sha256: str | None = Field(default=None, pattern=r"^[0-9a-f]{64}$")
    """Of the file; filled in, and checked where it is given."""
    geometries: ClassVar[tuple[Geometry, ...]] = ("linf", "l2", "l1", "l0", "semantic", "patch")
    is_general: ClassVar[bool] = False
    _source: bytes = PrivateAttr(default=b"")

    @model_validator(mode="after")
    def _reads_the_file(self) -> Self:
        path, _, function = self.attack.rpartition(":")
        if not Path(path).is_file():
            raise ValueError(f"attack: {path}: no such file")
        source = read_regular(Path(path), MAX_BYTES)
        if function not in _functions_of(source, path):
            raise ValueError(f"attack: {path} has no function '{function}'")
        found = hashlib.sha256(source).hexdigest()
        if self.sha256 not in (None, found):
            raise ValueError(f"sha256: {path} has {found}; it was changed since this suite was written")
        object.__setattr__(self, "sha256", found)
        self._source = source
        return self

    @property
    def name(self) -> str:
        return self.attack.rpartition(":")[2].replace("_", "-") + self.suffix

    def run(self, model: nn.Module, images: Tensor, labels: Tensor, threat: Threat, seed: int) -> Tensor:
        generator = torch.Generator(images.device).manual_seed(seed)
        try:
            found = self._function()(model, images.clone(), labels.clone(), threat, generator)
        except Exception as problem:
            path = self.attack.rpartition(":")[0]
            lines = [one.lineno for one in extract_tb(problem.__traceback__) if one.filename == path]
            where = f" in line {lines[-1]}" if lines else ""
            said = f"{type(problem).__name__}: {problem}"
            raise ModelError(f"{self.attack} failed{where} ({said})") from problem
        if not isinstance(found, Tensor) or found.shape != images.shape:
            got = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
            raise ModelError(f"{self.attack} returned {got}, expected images {tuple(images.shape)}")
        return found.detach().to(images)

    def _function(self) -> Callable[..., Any]:
        path, _, name = self.attack.rpartition(":")
        names: dict[str, Any] = {"__name__": Path(path).stem, "__file__": path}
        exec(compile(self._source, path, "exec"), names)  # noqa: S102  # the user's own file
        function: Callable[..., Any] = names[name]
        return function


def _functions_of(source: bytes, path: str) -> list[str]:
    """The names of the functions of a file.

    Raises:
        ValueError: it is no Python.
    """
    try:
        parsed = ast.parse(source, path)
    except (SyntaxError, ValueError) as problem:
        raise ValueError(f"attack: {path} is not valid Python: {problem}") from problem
    return [one.name for one in parsed.body if isinstance(one, ast.FunctionDef)]
