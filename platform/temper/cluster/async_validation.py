"""Validation during training: Ray Train's asynchronous validation, and what is left of it after training.

Ray Train validates reported checkpoints, one epoch at a time, while its workers train on. It ends a run only
when every validation has been tried, after it has released the workers. Metrics go through the run folder,
because Ray swallows a validation's error, forgets running validations when the run restarts under another
name, and returns metrics only to the caller of ``fit`` (Ray 2.60, read).
"""

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from temper.cluster.datasets import val_images
from temper.cluster.resources import num_cpus, num_gpus, wants_gpu
from temper.cluster.runtime import quiet_ray, result_of
from temper.errors import CheckpointError
from temper.host import choose_device
from temper.recipe import Recipe
from temper.records import RunFolder
from temper.run.open_data import OpenData
from temper.storage import fetched_state, local_path, mirrored
from temper.tracking import JsonlTracker
from temper.training import TrainState, finish_validation, read_state, validate_waiting
from temper.training.deferred_validation import read_answer


@dataclass(frozen=True)
class AsyncValidation:
    """Validates a run's waiting epochs, in whichever process it is called."""

    recipe: dict[str, Any]
    run: Path
    data: OpenData
    decoded: dict[str, Any]

    def __call__(self, checkpoint: Any = None, *, epoch: int | None = None) -> dict[str, float]:
        """Validate every waiting epoch up to ``epoch``, and return the metrics of that one.

        ``checkpoint`` is Ray's, and not needed.
        """
        quiet_ray()
        if epoch is None:  # nobody else writes the run folder
            with mirrored(self.run) as folder:
                self._validate(RunFolder(folder), None)
            return {}
        # Of a run in S3, the copy that the chief writes: on another host there is none, and what waits is
        # validated at the end.
        run = RunFolder(local_path(self.run))
        self._validate(run, epoch)
        return read_answer(run, epoch) or {}

    def _validate(self, run: RunFolder, epoch: int | None) -> None:
        recipe = Recipe.model_validate(self.recipe)
        device = choose_device(recipe.workers.use_gpu)
        val = val_images(self.data, self.decoded)
        validate_waiting(recipe, run, read_state(run.last), val, device, epoch)


def resources(recipe: Recipe, is_shared: bool) -> dict[str, Any]:
    """Resources of the validation task.

    A CPU (and a GPU) of its own where the cluster has them beside the workers. Else nothing, and it shares
    theirs: a task that waits for what training holds would validate only when training has ended. The same
    where the cluster is shared with other runs, which hold the rest: in a trial (``is_shared``), or in a task
    of Ray's, as cross-validation trains.
    """
    import ray

    workers = recipe.workers
    use_gpu = wants_gpu(workers.use_gpu)
    spare_cpus = num_cpus() - workers.max_workers * workers.cpus_per_worker
    spare_gpus = num_gpus() - workers.max_workers
    is_shared = is_shared or ray.get_runtime_context().get_task_id() is not None
    has_room = not is_shared and spare_cpus >= workers.cpus_per_worker and (spare_gpus >= 1 or not use_gpu)
    return {
        "num_cpus": workers.cpus_per_worker if has_room else 0,
        "num_gpus": 1 if has_room and use_gpu else 0,
        # Inside a trial, Ray would otherwise look only in the trial's placement group.
        "scheduling_strategy": "DEFAULT",
    }


def report_epoch(metrics: dict[str, Any], epoch: int | None) -> None:
    """Report to Ray Train from a worker, and request validation of ``epoch`` if it was deferred here."""
    import ray.train

    if epoch is None:
        ray.train.report(metrics)
        return
    with tempfile.TemporaryDirectory() as folder:
        # Ray validates checkpoints only, and copies them; the weights are in the run folder already.
        (Path(folder) / "epoch.txt").write_text(f"{epoch}\n", encoding="utf-8")
        ray.train.report(
            metrics,
            checkpoint=ray.train.Checkpoint.from_directory(folder),
            validation=ray.train.ValidationTaskConfig(fn_kwargs={"epoch": epoch}),
        )


def validate_rest(validation: AsyncValidation, is_shared: bool) -> TrainState:
    """Validate the outstanding epochs after training, and read the answers.

    Raises:
        TemperError: a validation failed.
        CheckpointError: an epoch cannot be validated, because its weights are gone.
    """
    import ray

    recipe = Recipe.model_validate(validation.recipe)
    run = RunFolder(fetched_state(validation.run))
    state = read_state(run.last)
    if state.waiting:
        result_of(ray.remote(_call).options(**resources(recipe, is_shared)).remote(validation))
        with mirrored(validation.run):
            state = finish_validation(recipe, run, state, JsonlTracker(run.metrics, state.num_epochs))
    if state.waiting:
        epochs = ", ".join(str(one.epoch) for one in state.waiting)
        raise CheckpointError(
            f"{run.waiting}: no validation results for epochs {epochs}; run the same command again"
        )
    return state


def _call(validation: AsyncValidation) -> None:
    validation()
