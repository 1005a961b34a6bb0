"""Keys that are planted in the environment are in nothing that temper writes or says.

Not at the same time as tests with the `ray_cluster`: of several clusters on a machine Ray Train's cleaner of
placement groups asks the one that was started last.
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

SECRETS = {
    # The form of real ones: W&B's key is 40 hex digits, that of AWS 20 and 40 characters.
    "WANDB_API_KEY": "b16b00b5" * 5,
    "AWS_ACCESS_KEY_ID": "AKIAPLANTEDPLANTED42",
    "AWS_SECRET_ACCESS_KEY": "pLaNtEdSeCrEt/aws+0123456789abcdefghijkl",
    "AWS_SESSION_TOKEN": "planted-aws-session-token-0123456789",
    "HF_TOKEN": "hf_plantedPlantedPlantedPlanted42",
    "RAY_AUTH_TOKEN": "planted-ray-auth-token-0123456789",
}
PASSWORD = "hunter2-planted-in-a-url"  # it is looked for, never used


class Planted:
    """Runs commands with the secrets in their environment, and keeps what they said."""

    def __init__(self, folder: Path, ray: Path) -> None:
        self.folder, self.ray = folder, ray
        self.said: list[tuple[str, str]] = []
        home = folder / "home"
        home.mkdir()
        # A home and a temporary folder of its own, so that caches and logs are looked at too.
        self.environment = {
            # WANDB_SERVICE too: else W&B's process of other tests would write, or not write, for ours.
            **{name: value for name, value in os.environ.items() if not name.startswith("WANDB_")},
            **SECRETS,
            "WANDB_MODE": "offline",
            "HOME": str(home),
            "XDG_CACHE_HOME": str(home / ".cache"),
            # W&B has a socket too.
            "TMPDIR": str(ray),
            "RAY_TMPDIR": str(ray),
            "PYTHONPATH": os.pathsep.join(sys.path),
        }

    def run(self, *arguments: str | Path, status: int = 0) -> str:
        done = subprocess.run(
            [sys.executable, *map(str, arguments)],
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=900,
        )
        said = done.stdout + done.stderr
        self.said.append((" ".join(map(str, arguments)), said))
        assert done.returncode == status, said
        return said

    def leaks(self) -> list[str]:
        """Where one of the secrets is: names of files, and commands that said it."""
        wanted = {name: value.encode() for name, value in {**SECRETS, "password": PASSWORD}.items()}
        found = [
            f"{name} in {path.relative_to(folder)}"
            for folder in (self.folder, self.ray)
            for path in sorted(folder.rglob("*"))
            if path.is_file() and not path.is_symlink()
            for content in [str(path).encode() + path.read_bytes()]
            for name, value in wanted.items()
            if value in content
        ]
        return found + [
            f"{name} in the output of {command}"
            for command, said in self.said
            for name, value in wanted.items()
            if value.decode() in said
        ]


@pytest.fixture
def planted(tmp_path: Path) -> Iterator[Planted]:
    # Ray's sockets lie in its folder, and their paths may have 107 characters.
    with tempfile.TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True) as ray:
        yield Planted(tmp_path, Path(ray))


SPACE = """
search: grid
metric: val/target/robust_acc
scheduler: null
finalists: 1
parameters:
  objective.alpha: {choice: [0.1, 0.3]}
"""
COMMANDS = """
import json, sys
from temper.cli import main
for command in json.loads(sys.argv[1]):
    try:
        main(command)
    except SystemExit as end:
        if end.code:
            raise
"""


@pytest.mark.long
def test_a_run_a_sweep_and_all_that_follows_hold_no_secret(planted: Planted, digits: dict[str, Path]) -> None:
    """One process for all, because each would import PyTorch anew. Ray's own folder is searched too."""
    (planted.folder / "space.yaml").write_text(SPACE)
    recipe = str(ROOT / "jobs/recipes/tiny.yaml")
    changes = {
        "data.target": digits["target"],
        "data.source": digits["source"],
        "data.shots_per_class": 20,
        "tracking.wandb": "true",
        "epochs": 1,
        "evaluation.max_images": 16,
    }
    sets = [word for name, value in changes.items() for word in ("--set", f"{name}={value}")]
    commands = [
        ["train", recipe, *sets, "--out", "run"],
        ["evaluate", "run", "--out", "again"],
        ["sweep", recipe, "space.yaml", *sets, "--out", "sweep"],
        ["leaderboard", "run", "again", "sweep", "--out", "board"],
    ]
    said = planted.run("-c", COMMANDS, json.dumps(commands))
    written = [path for path in planted.folder.rglob("*") if path.is_file()]
    names = {path.name for path in written}
    assert {"recipe.yaml", "metrics.jsonl", "record.json", "state.json", "index.html", "sweep.html"} <= names
    for folder in ("run", "again", "sweep"):
        logs = [
            path for path in written if path.suffix == ".wandb" and planted.folder / folder in path.parents
        ]
        assert any(path.stat().st_size for path in logs), f"{folder}: {said}"
    assert len((planted.folder / "sweep/ledger.jsonl").read_text().splitlines()) >= 2
    assert any(planted.ray.rglob("raylet.out"))
    assert planted.leaks() == []


def test_the_search_finds_what_was_planted(planted: Planted) -> None:
    """Else the tests beside it would prove nothing."""
    code = "import os, pathlib; print(os.environ['HF_TOKEN']); pathlib.Path('a.wandb').write_bytes(b'\\0' + "
    planted.run("-c", code + "os.environb[b'WANDB_API_KEY'] + b'\\xff')")
    assert [leak.partition(" in ")[0] for leak in planted.leaks()] == ["WANDB_API_KEY", "HF_TOKEN"]


@pytest.mark.parametrize(
    "assignment",
    [
        f"data.target=s3://me:{PASSWORD}@bucket/shards",
        f"data.source=https://me:{PASSWORD}@host/shards",
        f"model.weights=https://me:{PASSWORD}@host/w.pth",
        f"model.weights=https://host/w.pth?token={PASSWORD}",
        f"tracking.project={SECRETS['WANDB_API_KEY']}",
        f"tracking.tags=[a, {SECRETS['HF_TOKEN']}]",
        f"nonsense={SECRETS['AWS_SECRET_ACCESS_KEY']}",
        f"epochs={SECRETS['RAY_AUTH_TOKEN']}",
        f"threat=: {SECRETS['AWS_SESSION_TOKEN']}: [",
    ],
)
def test_a_recipe_with_a_secret_is_refused_without_repeating_it(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, assignment: str
) -> None:
    from temper.cli import main

    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("WANDB_MODE", "offline")
    with pytest.raises(SystemExit) as end:
        main(
            ["train", str(ROOT / "jobs/recipes/tiny.yaml"), "--set", assignment, "--out", str(tmp_path / "r")]
        )
    said = "".join(capsys.readouterr())
    assert end.value.code == 2
    assert "error:" in said
    assert "***" in said
    assert PASSWORD not in said
    assert not [name for name, value in SECRETS.items() if value in said]
    assert not (tmp_path / "r").exists()
