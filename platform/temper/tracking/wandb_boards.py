"""A leaderboard at Weights & Biases: a table, and an artifact with the board's files."""

from collections.abc import Sequence
from pathlib import Path

from temper.errors import TemperError
from temper.tracking.wandb_mode import DISABLED, choose_mode, choose_project, quiet_settings


def publish_board(
    folder: Path,
    files: Sequence[Path],
    columns: Sequence[str],
    rows: Sequence[Sequence[object]],
    project: str | None,
) -> str:
    """Log a table and the artifact ``leaderboard``; where, in words. Offline without a key or WANDB_MODE.

    The key comes from the environment alone, and is written nowhere.

    Raises:
        TemperError: W&B could not take them; the board itself is untouched.
    """
    import wandb

    mode = choose_mode()
    if mode == DISABLED:
        return "nothing, because WANDB_MODE is disabled"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        run = wandb.init(
            dir=str(folder),
            project=choose_project(project),
            name="leaderboard",
            job_type="leaderboard",
            mode=mode,  # type: ignore[arg-type]  # whatever the environment says; wandb judges it
            settings=quiet_settings(),
        )
        run.log({"leaderboard": wandb.Table(columns=list(columns), data=[list(row) for row in rows])})
        artifact = wandb.Artifact("leaderboard", type="leaderboard")
        for file in files:
            artifact.add_file(str(file))
        run.log_artifact(artifact)
        place = str(run.url or run.dir)
        run.finish()
    except Exception as problem:  # whatever wandb raises
        raise TemperError(f"W&B rejected the leaderboard: {problem}") from None
    return f"{mode}, {place}"
