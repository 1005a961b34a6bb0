"""A job before it is sent: a command of temper, the folder it runs in, and the place of its result."""

import shlex
from pathlib import Path
from typing import Any, Self

from pydantic import Field, model_validator

from temper.credentials import SECRET_NAME, find_secrets
from temper.shipped import PACKAGE, example
from temper.spec import Spec, read_yaml

RUNTIME_ENV = Path("jobs/runtime_env.yaml")
CODE = Path("platform/temper")
"""In a checkout."""
PROBE_ANSWER = "temper-probe: "
"""Prefix of the line in which the storage check answers."""
ID_FORM = r"^[A-Za-z0-9][A-Za-z0-9_-]{0,62}$"


class JobRequest(Spec):
    """``words`` are those of ``temper`` itself; ``out`` is seen by every node, and ``reads`` too."""

    id: str = Field(pattern=ID_FORM)
    words: tuple[str, ...] = Field(min_length=1)
    out: str
    reads: dict[str, str] = Field(default_factory=dict)
    """What is read on the cluster: what it is for, and its absolute path or s3:// address."""
    working_dir: Path
    runtime_env: dict[str, Any]
    """Of Ray, without ``working_dir``."""

    @model_validator(mode="after")
    def _holds_no_secret(self) -> Self:
        """Ray shows words and variables of a job to everyone who may see the cluster."""
        spoken = {"command": list(self.words), "out": self.out, "reads": self.reads, "job": self.id}
        for where, masked in find_secrets({**spoken, "runtime_env": self.runtime_env}):
            raise ValueError(f"'{where}' holds a secret ({masked}); keys come from the nodes' environment")
        for name in self.runtime_env.get("env_vars", {}):
            if SECRET_NAME.search(name):
                raise ValueError(f"{name} would show a secret: keys come from the nodes' environment")
        return self

    @property
    def entrypoint(self) -> str:
        """What Ray's shell runs."""
        return shlex.join(["python", "-m", "temper.cli", *self.words])

    @property
    def metadata(self) -> dict[str, str]:
        """What Ray keeps beside the job; attempts of one job are found by it."""
        return {"temper_job": self.id, "out": self.out, "command": shlex.join(["temper", *self.words])}

    @property
    def full_runtime_env(self) -> dict[str, Any]:
        return {**self.runtime_env, "working_dir": str(self.working_dir)}


def load_runtime_env(working_dir: Path, variables: dict[str, str]) -> dict[str, Any]:
    """``jobs/runtime_env.yaml`` of the folder, or temper's own, with further environment variables.

    A folder that is no checkout of temper runs the code of this process, which is sent beside it.
    """
    path = working_dir / RUNTIME_ENV
    document = read_yaml(path if path.is_file() else example("runtime_env.yaml"))
    found = {**document, "env_vars": {**document.get("env_vars", {}), **variables}}
    if not (working_dir / CODE).is_dir():
        found["py_modules"] = [*document.get("py_modules", []), str(PACKAGE)]
    return found


def next_free(name: str, used: set[str]) -> str:
    """The submission id of the next attempt: ``name``, ``name-2``, ``name-3``, for Ray takes none twice."""
    if name not in used:
        return name
    number = 2
    while f"{name}-{number}" in used:
        number += 1
    return f"{name}-{number}"
