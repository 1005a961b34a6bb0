"""Weights & Biases runs that can fail without anybody losing anything."""

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from temper.credentials import shown
from temper.tracking.wandb_mode import choose_mode

logger = logging.getLogger(__name__)

INIT_TIMEOUT_S = 60.0
"""For W&B's own process to start, and for its server to answer; a loaded machine took 20 s for the first."""


class WandbTracker:
    """One W&B run. The first failure is logged as a warning and ends the tracking, never the run."""

    def __init__(
        self,
        folder: Path,
        project: str,
        group: str | None,
        tags: Sequence[str],
        name: str,
        config: Mapping[str, Any],
        job_type: str | None = None,
    ) -> None:
        self._run: Any = None
        self._is_on = True
        self._attempt(lambda: self._start(folder, project, group, tags, name, config, job_type))

    def _start(
        self,
        folder: Path,
        project: str,
        group: str | None,
        tags: Sequence[str],
        name: str,
        config: Mapping[str, Any],
        job_type: str | None,
    ) -> None:
        import wandb

        folder.mkdir(parents=True, exist_ok=True)
        mode = choose_mode()
        settings = wandb.Settings(
            silent=True,
            console="off",
            disable_git=True,
            disable_code=True,
            save_code=False,
            x_disable_stats=True,
            x_disable_meta=True,
            init_timeout=INIT_TIMEOUT_S,
            x_service_wait=INIT_TIMEOUT_S,
        )
        self._run = wandb.init(
            dir=str(folder),
            project=project,
            group=group,
            tags=list(tags),
            name=name,
            job_type=job_type,
            config=dict(config),
            mode=mode,  # type: ignore[arg-type]  # whatever the environment says; wandb judges it
            settings=settings,
            reinit="create_new",
        )
        # Not W&B's own steps, which never go back: an epoch may be validated after the next was logged.
        self._run.define_metric("epoch")
        self._run.define_metric("*", step_metric="epoch")

    def log(self, metrics: Mapping[str, float], *, epoch: int) -> None:
        self._attempt(lambda: self._run.log({**metrics, "epoch": epoch}))

    def image(self, name: str, path: Path) -> None:
        self._attempt(lambda: self._log_image(name, path))

    def _log_image(self, name: str, path: Path) -> None:
        import wandb

        self._run.log({name: wandb.Image(str(path))})

    def table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        """Keep a table; a column holds one type."""
        self._attempt(lambda: self._log_table(name, columns, rows))

    def _log_table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        import wandb

        self._run.log({name: wandb.Table(columns=list(columns), data=[list(row) for row in rows])})

    def page(self, name: str, path: Path) -> None:
        """Keep an HTML page."""
        self._attempt(lambda: self._log_page(name, path))

    def _log_page(self, name: str, path: Path) -> None:
        import wandb

        self._run.log({name: wandb.Html(path.read_text(encoding="utf-8"), inject=False)})

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
