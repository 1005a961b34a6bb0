"""The linear probe as a run's starting point: its head, and the first candidate for the best model."""

from dataclasses import dataclass

from temper.models import Classifier, TaskModel, build_model
from temper.recipe import Recipe
from temper.records import RunFolder
from temper.training.data import TrainData
from temper.training.probe import Probe, head_of, put_head, save_head
from temper.training.saving import save_best, save_last, save_state
from temper.training.state import TrainState
from temper.training.worker import Worker


@dataclass(frozen=True)
class Origin:
    """What a run starts from."""

    weights: str | None = None
    """Replaces the recipe's ``model.weights``: the pretrained start of this very recipe."""
    probe: str | None = None
    """The finished run of the linear probe on them: the first candidate for the best model."""


def build_start_model(recipe: Recipe, feed: TrainData, weights: str | None, probe: Probe | None) -> TaskModel:
    """The model at the start of the run."""
    spec = recipe.model.model_copy(update={"weights": weights})
    model = build_model(spec, feed.classes, image_size=recipe.data.image_size, seed=recipe.seed)
    if probe is not None and recipe.starts_from_probe:
        put_head(model, "target", probe.head)
    return model


def keep_probe(
    run: RunFolder, state: TrainState, probe: Probe, model: TaskModel, worker: Worker
) -> TrainState:
    """Keep the start with its probe as the best model until an epoch is better; ``model`` stays as it is.

    The returned state counts the probe's cost. A crash meanwhile leaves the run as it was.
    """
    if state.probe_metrics is not None:
        return state
    after = state.model_copy(
        update={
            "best_metrics": probe.metrics,
            "probe_metrics": probe.metrics,
            "adapter_ranks": model.controller.ranks(),
            "train_s": state.train_s + probe.state.train_s,
            "passes": state.passes + probe.state.passes,
        }
    )
    if worker.is_chief:
        keep_head(run, state, probe.head)
        own = head_of(model)
        put_head(model, "target", probe.head)
        after = after.model_copy(update=save_best(run, model))
        put_head(model, "target", own)
        save_state(run, after)
    worker.barrier()
    return after


def keep_head(run: RunFolder, state: TrainState, head: Classifier) -> None:
    """Write the probe's head into the folder of a run that is at ``state``."""
    save_last(run, state)  # whoever finds a checkpoint without it takes the folder for another run's
    save_head(run, head)
