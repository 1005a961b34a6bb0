"""Which long tests run again: those whose file or subject has changed."""

import importlib.util
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]


def load() -> Any:
    spec = importlib.util.spec_from_file_location("changed", ROOT / "tests/changed.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


CHANGED = load()


@pytest.mark.parametrize("file", CHANGED.SUBJECTS)
def test_each_file_has_long_tests_and_a_subject_that_is_there(file: str) -> None:
    assert "pytest.mark.long" in (ROOT / file).read_text()
    assert len(CHANGED.digest(file, CHANGED.SUBJECTS[file])) == 16


def test_a_digest_follows_its_subject_alone(tmp_path: Path) -> None:
    package = tmp_path / "platform/temper"
    for name in ("search/a.py", "search/deep/b.py", "models/c.py"):
        (package / name).parent.mkdir(parents=True, exist_ok=True)
        (package / name).write_text("1")
    (tmp_path / "t.py").write_text("1")

    def now() -> str:
        found: str = CHANGED.digest("t.py", ("search",), tmp_path)
        return found

    first = now()
    (package / "models/c.py").write_text("2")
    (package / "search/notes.md").write_text("2")
    assert now() == first
    seen = {first}
    for change in ("search/a.py", "search/deep/b.py"):
        (package / change).write_text("2")
        seen.add(now())
    (package / "search/a.py").rename(package / "search/z.py")
    seen.add(now())
    (tmp_path / "t.py").write_text("2")
    seen.add(now())
    assert len(seen) == 5


def test_a_subject_that_is_gone_is_named(tmp_path: Path) -> None:
    (tmp_path / "t.py").write_text("")
    with pytest.raises(SystemExit, match=r"platform/temper/search: named in .*changed\.py, and not there"):
        CHANGED.digest("t.py", ("search",), tmp_path)
