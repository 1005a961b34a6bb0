"""What the tests of commands share."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from temper.cli import main


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Runs a command in this process: its exit code, stdout and stderr."""

    def call(*arguments: str | Path) -> tuple[int, str, str]:
        code: Any = 0
        try:
            main([str(argument) for argument in arguments])
        except SystemExit as end:
            code = end.code or 0
        return code, *capsys.readouterr()

    return call
