"""Weights & Biases runs that can fail without losing anything."""

import json
import logging
import os
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from temper.credentials import shown
from temper.records import RunFolder, write_atomic
from temper.safe_load import read_json
from temper.tracking.wandb_mode import DISABLED, choose_mode, choose_project, quiet_settings

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Resumed:
    """The W&B run of a run folder, which all sessions of its training share."""

    run_id: str
    num_logged: int
    """Lines that earlier sessions logged: W&B's steps continue from there."""


def known_id(run: RunFolder, *, is_new: bool) -> str:
    """The W&B id of ``run``, from its folder; another where there is none, or the run begins anew."""
    try:
        known = read_json(run.tracking)["wandb_id"]
    except (OSError, ValueError, KeyError, TypeError):
        known = None
    if isinstance(known, str) and known.isalnum() and not is_new:
        return known
    drawn = secrets.token_hex(4)
    write_atomic(run.tracking, json.dumps({"wandb_id": drawn}) + "\n")
    return drawn


class WandbTracker:
    """One W&B run. The first failure is logged as a warning and ends the tracking, never the run."""

    def __init__(
        self,
        folder: Path,
        project: str | None,
        group: str | None,
        tags: Sequence[str],
        name: str,
        config: Mapping[str, Any],
        job_type: str | None = None,
        resumed: Resumed | None = None,
    ) -> None:
        self._run: Any = None
        self._is_on = True
        self._step = None if resumed is None else resumed.num_logged
        settings = {
            # W&B itself reads the environment once in a process, and may have done so before.
            "project": choose_project(project),
            "entity": os.environ.get("WANDB_ENTITY") or None,
            "group": group or os.environ.get("WANDB_RUN_GROUP") or None,
            "tags": list(tags) or [tag for tag in os.environ.get("WANDB_TAGS", "").split(",") if tag],
            "id": None if resumed is None else resumed.run_id,
            "resume": None if resumed is None else "allow",
            "name": name,
            "job_type": job_type,
            "config": dict(config),
        }
        self._attempt(lambda: self._start(folder, settings))

    def _start(self, folder: Path, settings: Mapping[str, Any]) -> None:
        import wandb

        mode = choose_mode()
        if mode == DISABLED:
            self._is_on = False
            return
        folder.mkdir(parents=True, exist_ok=True)
        self._run = wandb.init(
            **settings,
            dir=str(folder),
            mode=mode,  # type: ignore[arg-type]  # whatever the environment says; wandb judges it
            settings=quiet_settings(),
            reinit="create_new",
        )
        # Not W&B's own steps, which never go back: an epoch may be validated after the next was logged.
        self._run.define_metric("epoch")
        self._run.define_metric("*", step_metric="epoch")

    def log(self, metrics: Mapping[str, float], *, epoch: int) -> None:
        step = self._step
        self._attempt(lambda: self._run.log({**metrics, "epoch": epoch + 1}, step=step))
        self._step = None if step is None else step + 1

    def image(self, name: str, path: Path) -> None:
        self._log_media(name, lambda wandb: wandb.Image(str(path)))

    def table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        """Keep a table; a column holds one type."""
        data = [list(row) for row in rows]
        self._log_media(name, lambda wandb: wandb.Table(columns=list(columns), data=data))

    def page(self, name: str, path: Path) -> None:
        """Keep an HTML page."""
        self._log_media(name, lambda wandb: wandb.Html(path.read_text(encoding="utf-8"), inject=False))

    def _log_media(self, name: str, make: Callable[[Any], Any]) -> None:
        """Log what ``make`` makes of the module ``wandb``."""

        def log() -> None:
            import wandb

            self._run.log({name: make(wandb)})

        self._attempt(log)

    def summary(self, metrics: Mapping[str, float]) -> None:
        self._attempt(lambda: self._run.summary.update(dict(metrics)))

    def finish(self) -> None:
        self._attempt(lambda: self._run.finish())
        self._is_on = False

    def _attempt(self, action: Callable[[], Any]) -> None:
        if not self._is_on:
            return
        try:
            action()
        except Exception as problem:  # tracking must never end a run, whatever wandb raises
            logger.warning("W&B tracking stopped: %s", shown(str(problem)))
            self._is_on = False
