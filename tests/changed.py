"""The long tests whose subject has changed since they last passed: `make test-changed` runs them.

`tests/passed.json` keeps, for each file of tests, a digest of the file and of its subject when its long tests
passed. Whoever changes a subject runs them once and commits the digests; CI runs those that nobody has.
"""

import hashlib
import json
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

ROOT = Path(__file__).parent.parent
PASSED = ROOT / "tests/passed.json"
RUNS = ("training", "models", "batches", "data", "objective", "optim.py", "schedules", "hardening", "recipe")
"""Packages that make the numbers of a run."""
SUBJECTS: dict[str, tuple[str, ...]] = {
    "tests/cluster/test_crossval.py": ("cluster/crossval", "cluster/launch.py", "records"),
    "tests/cluster/test_ray.py": ("cluster", *RUNS),
    "tests/cluster/test_sweep.py": ("cluster", "search"),
    "tests/cluster/test_sweep_survives.py": ("cluster", "search", "records"),
    "tests/s3/test_on_ray.py": ("storage", "cluster/launch.py", "cluster/workers.py"),
    "tests/system/test_against_torchattacks.py": ("attacks", "evaluation"),
    "tests/system/test_catastrophic_overfitting.py": ("attacks", *RUNS),
    "tests/system/test_secrets.py": ("credentials.py", "tracking", "cluster", "records", "deployment", "run"),
    "tests/unit/evaluation/test_masked_models.py": ("attacks", "evaluation", "models"),
    "tests/unit/test_exactly_once.py": RUNS,
    "tests/unit/test_long_runs.py": ("attacks", *RUNS),
    "tests/unit/test_resumed_evaluations.py": ("evaluation", "run", "records", "storage"),
    "tests/unit/test_two_ranks.py": RUNS,
    "tests/unit/test_whole_batch.py": ("attacks", *RUNS),
}
"""File of tests -> what its long ones test, under platform/temper. Others run by `make test-long` alone."""


def digest(file: str, subject: Iterable[str], root: Path = ROOT) -> str:
    """Of the contents of ``file`` and of all Python files of its ``subject``.

    Raises:
        SystemExit: one of them is not there.
    """
    found = hashlib.sha256()
    for place in (file, *(f"platform/temper/{part}" for part in subject)):
        path = root / place
        if not path.exists():
            raise SystemExit(f"error: {place}: named in tests/changed.py, and not there")
        for one in sorted(path.rglob("*.py")) if path.is_dir() else [path]:
            found.update(f"{one.relative_to(root).as_posix()}\n".encode() + one.read_bytes())
    return found.hexdigest()[:16]


def main() -> int:
    """Run them one file after another, and note which passed."""
    passed: dict[str, str] = json.loads(PASSED.read_text()) if PASSED.exists() else {}
    for file, subject in SUBJECTS.items():
        now = digest(file, subject)
        if passed.get(file) == now:
            continue
        print(f"{file}: what its long tests test has changed since they passed", flush=True)
        code = subprocess.run([sys.executable, "-m", "pytest", "-m", "long", file], cwd=ROOT).returncode
        if code:
            return code
        passed[file] = now
        PASSED.write_text(json.dumps(passed, indent=1, sort_keys=True) + "\n")
    print("the long tests of every subject have passed as it is")
    return 0


if __name__ == "__main__":
    sys.exit(main())
