"""Folding a run's adapter into its backbone."""

from dataclasses import dataclass
from pathlib import Path

import torch

from temper.batches import as_floats
from temper.errors import CheckpointError
from temper.models import build_model, count_params
from temper.records import RunFolder, write_atomic
from temper.run.run_target import RunTarget
from temper.spec import dump_yaml
from temper.storage import exists, fetched, mirrored, named
from temper.training import read_state, recipe_of, save_best

NUM_COMPARED = 64


@dataclass(frozen=True)
class Merged:
    """The result of a merge."""

    adapter: str
    num_params_before: int
    num_params: int
    largest_change: float
    """Of any logit of the first test images."""


@torch.no_grad()
def merge_run(path: Path, out: Path) -> Merged:
    """Make ``out`` a run whose plain model answers as the adapted one of ``path`` does.

    It can be evaluated, and be the start of another run.

    Raises:
        CheckpointError: no finished run here, one without an adapter, or ``out`` exists.
        ModelError: an adapter that cannot be folded.
    """
    if exists(out):
        raise CheckpointError(f"{named(out)}: already exists; remove it, or choose another --out")
    with mirrored(out) as folder:
        return _merge(RunFolder(fetched(path)), RunFolder(folder))


def _merge(run: RunFolder, merged: RunFolder) -> Merged:
    state = read_state(run.checkpoint)
    recipe = recipe_of(run, state)
    adapter = recipe.model.adapter
    if adapter is None:
        raise CheckpointError(
            f"{named(run.path)}: this run has no adapter (model.adapter is null), so it is plain already"
        )
    target = RunTarget.of(run, recipe, state)
    adapted = target.model.cpu()
    spec = recipe.model.model_copy(update={"adapter": None, "weights": None, "sha256": None})
    size = recipe.data.image_size
    plain = build_model(spec, state.classes, image_size=size, seed=recipe.seed).eval()
    plain.backbone.load_state_dict(adapter.fold(adapted.backbone).state_dict())
    plain.heads.load_state_dict(adapted.heads.state_dict())
    images = as_floats(torch.from_numpy(target.test.images[:NUM_COMPARED]))
    change = float((plain(images) - adapted(images)).abs().max())
    folded = recipe.model_copy(update={"model": recipe.model.model_copy(update={"adapter": None})})
    digest = save_best(merged, plain)
    write_atomic(
        merged.checkpoint / "state.json",
        state.model_copy(update={"recipe_hash": folded.hash, "adapter_ranks": {}, **digest}).model_dump_json(
            indent=2
        ),
    )
    if run.probe_head.exists():
        write_atomic(merged.probe_head, run.probe_head.read_bytes())
    write_atomic(merged.recipe, dump_yaml(folded.resolved()))
    return Merged(adapter.label, count_params(adapted), count_params(plain), change)
