"""What every adapter does, and what it wants of the training loop."""

from collections.abc import Mapping
from typing import NoReturn

from torch import Tensor, nn

from temper.errors import ModelError
from temper.spec import Spec


class AdapterController:
    """What an adapter does between optimizer steps; this one does nothing.

    ``begin`` once, then ``after_step`` behind each ``optimizer.step()`` while the gradients are still there.
    Everything is deterministic, so ranks of equal gradients stay equal.
    """

    def __init__(self, ranks: Mapping[str, int] | None = None) -> None:
        self._constant_ranks = dict(ranks or {})

    def begin(self, total_steps: int) -> None:
        """Say how many optimizer steps the whole run has, over all its phases."""

    def regularization(self) -> Tensor | None:
        """A scalar to be added to the loss; ``None`` where there is nothing to add."""
        return None

    def after_step(self, step: int) -> None:
        """Look at the gradients of optimizer step ``step``, counted from 0 over the whole run."""

    def state_dict(self) -> dict[str, Tensor]:
        """What a killed run needs to resume bit for bit."""
        return {}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Go on from ``state_dict``; ``begin`` may come before or after.

        Raises:
            ModelError: the state is of another adapter or backbone.
        """
        if state:
            raise ModelError("this adapter keeps no state between steps, so the state belongs to another one")

    def ranks(self) -> dict[str, int]:
        """Adapted layer -> rank that it has now; empty for adapters without ranks."""
        return dict(self._constant_ranks)


class Adapter(Spec):
    """Trains few parameters instead of a backbone's own. At its start it changes no output."""

    kind: str

    @property
    def label(self) -> str:
        """A short name for tables, such as ``lora(8)``."""
        return self.kind

    def attach(self, backbone: nn.Module) -> None:
        """Put the adapter into ``backbone``, in place.

        New parameters draw from torch's global generator. Seed it, load the backbone's weights before, and
        attach once only.

        Raises:
            ModelError: the backbone has no layer that this adapter could adapt.
        """
        raise AssertionError(f"{type(self).__name__} does not say how it is attached")

    def trained_names(self, backbone: nn.Module) -> set[str]:
        """Those of ``backbone.named_parameters()`` that train; all others are to be frozen."""
        raise AssertionError(f"{type(self).__name__} does not say what trains")

    def fold(self, backbone: nn.Module) -> nn.Module:
        """A copy of ``backbone`` with the adapter merged into its weights.

        It has the structure and the state-dict keys from before ``attach``, and the same outputs up to
        float error.

        Raises:
            ModelError: what the adapter computes cannot be written as weights of the backbone.
        """
        raise AssertionError(f"{type(self).__name__} does not say how it is folded")

    def controller(self, backbone: nn.Module) -> AdapterController:
        """What the training loop calls, for this very ``backbone``, after ``attach``."""
        return AdapterController()

    def refuse(self, backbone: nn.Module, needs: str, instead: str) -> NoReturn:
        """Raise the error for a backbone in which there is nothing to adapt."""
        raise ModelError(
            f"model.adapter: '{self.kind}' adapts {needs}, and this backbone ({type(backbone).__name__}) "
            f"has none; use {instead}"
        )

    def refuse_to_fold(self, why: str) -> NoReturn:
        """Raise the error for an adapter that is more than a change of weights."""
        raise ModelError(
            f"model.adapter: '{self.kind}' cannot be merged into the backbone, because {why}; keep the "
            "adapter, or train one that can: lora, adalora or norm_bias"
        )
