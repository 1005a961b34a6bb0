"""Importance of each rank of each layer, and which ranks the budget keeps. AdaLoRA, arXiv:2303.10512.

peft's allocator is not used: it fails where a layer has no gradient (as in a phase that freezes it) and
where the two ranks are equal, prunes too much where scores are equal, never prunes for good without a
final phase, and cannot be saved.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from temper.errors import ModelError
from temper.models.adapters.base import AdapterController
from temper.models.adapters.low_rank import factors, low_rank_layers

SMOOTHING = 0.85
"""Of both moving averages, beta_1 and beta_2 of the paper."""


@dataclass(frozen=True)
class RankSchedule:
    """Ranks per layer at the start and the end, and shares of the run (0..1) before and after the fall."""

    init_rank: int
    target_rank: int
    tinit_frac: float
    tfinal_frac: float
    every_steps: int

    def last_warmup_step(self, total_steps: int) -> int:
        """Up to this step, nothing is pruned."""
        return min(round(self.tinit_frac * total_steps), self.final_step(total_steps))

    def final_step(self, total_steps: int) -> int:
        """At this step, the last at the latest, the ranks are chosen for good."""
        return min(total_steps - round(self.tfinal_frac * total_steps), total_steps - 1)

    def budget(self, step: int, total_steps: int, num_layers: int) -> int | None:
        """Ranks to be kept over all layers; ``None`` where ``step`` does not choose."""
        final, warmup = self.final_step(total_steps), self.last_warmup_step(total_steps)
        target = self.target_rank * num_layers
        if step >= final:
            return target
        if step <= warmup or step % self.every_steps != 0:
            return None
        left = 1 - (step - warmup) / (final - warmup)
        return int((self.init_rank * num_layers - target) * left**3 + target)


class RankController(AdapterController):
    """Prunes the ranks of a backbone's AdaLoRA layers as a run goes on.

    A factor without a gradient (its layer is frozen in this phase) keeps the importance that it had, 0 at
    the start. What is pruned before the final step may come back; what is pruned there stays 0.
    """

    def __init__(self, backbone: nn.Module, schedule: RankSchedule, orth_weight: float) -> None:
        super().__init__()
        self._backbone = backbone
        self._schedule = schedule
        self._orth_weight = orth_weight
        self._total_steps: int | None = None
        self._sensitivity: dict[str, Tensor] = {}
        self._uncertainty: dict[str, Tensor] = {}
        self._kept: dict[str, Tensor] = {}
        self._is_final = False

    def begin(self, total_steps: int) -> None:
        self._total_steps = total_steps

    def regularization(self) -> Tensor | None:
        """``orth_weight`` times the mean Frobenius norm of A A^T - I and B^T B - I over what trains."""
        distances = []
        for layer in self._factors().values():
            for name, factor in (("lora_A", layer["lora_A"]), ("lora_B", layer["lora_B"].T)):
                if layer[name].requires_grad:
                    gram = factor @ factor.T
                    distances.append(torch.linalg.matrix_norm(gram - torch.eye(len(gram)).to(gram)))
        if not distances or self._orth_weight == 0:
            return None
        return self._orth_weight * torch.stack(distances).mean()

    @torch.no_grad()
    def after_step(self, step: int) -> None:
        assert self._total_steps is not None, "begin comes before the first step"
        layers = self._factors()
        if not self._is_final:
            is_final = step >= self._schedule.final_step(self._total_steps)
            if not is_final:
                self._update_importance(layers)
            budget = self._schedule.budget(step, self._total_steps, len(layers))
            if budget is None:
                return
            self._kept = self._choose(layers, budget)
            self._is_final = is_final
        for name, kept in self._kept.items():
            layers[name]["lora_E"].masked_fill_(~kept, 0.0)
        if self._is_final:
            self._sensitivity, self._uncertainty = {}, {}

    def state_dict(self) -> dict[str, Tensor]:
        parts = {"sensitivity": self._sensitivity, "uncertainty": self._uncertainty, "kept": self._kept}
        state = {
            f"{part}/{name}": value.clone() for part, own in parts.items() for name, value in own.items()
        }
        return state | {"is_final": torch.tensor(self._is_final)}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        layers = self._factors()
        shapes = {f"kept/{name}": layer["lora_E"] for name, layer in layers.items()}
        for name, layer in layers.items():
            for factor, parameter in layer.items():
                shapes |= {f"{part}/{name}.{factor}": parameter for part in ("sensitivity", "uncertainty")}
        parts: dict[str, dict[str, Tensor]] = {"sensitivity": {}, "uncertainty": {}, "kept": {}}
        for key, tensor in state.items():
            if key == "is_final":
                continue
            if key not in shapes or shapes[key].shape != tensor.shape:
                raise ModelError(
                    f"the state of AdaLoRA's ranks belongs to another adapter or backbone ({key})"
                )
            part, _, name = key.partition("/")
            parts[part][name] = tensor.to(shapes[key].device, copy=True)
        self._sensitivity, self._uncertainty = parts["sensitivity"], parts["uncertainty"]
        self._kept = parts["kept"]
        self._is_final = bool(state.get("is_final", False))

    def ranks(self) -> dict[str, int]:
        """Adapted layer -> ranks that the last choice kept; before the first choice, all."""
        all_ranks = {name: len(layer["lora_E"]) for name, layer in self._factors().items()}
        return all_ranks | {name: int(kept.sum()) for name, kept in self._kept.items()}

    def _factors(self) -> dict[str, dict[str, nn.Parameter]]:
        return {name: factors(layer) for name, layer in low_rank_layers(self._backbone).items()}

    def _update_importance(self, layers: Mapping[str, Mapping[str, nn.Parameter]]) -> None:
        """Moving averages of |weight * gradient| and of how far it strays (equations 8 to 10)."""
        for name, layer in layers.items():
            for factor, parameter in layer.items():
                if parameter.grad is None:
                    continue
                key = f"{name}.{factor}"
                for averages in (self._sensitivity, self._uncertainty):
                    averages.setdefault(key, torch.zeros_like(parameter))
                now = (parameter * parameter.grad).abs()
                mean = self._sensitivity[key].mul_(SMOOTHING).add_(now, alpha=1 - SMOOTHING)
                self._uncertainty[key].mul_(SMOOTHING).add_((now - mean).abs(), alpha=1 - SMOOTHING)

    def _score(self, name: str, layer: Mapping[str, nn.Parameter]) -> Tensor:
        """Importance (rank,) of each triplet of a singular value and its two vectors (equation 7)."""

        def entries(factor: str) -> Tensor:
            key = f"{name}.{factor}"
            if key not in self._sensitivity:
                return torch.zeros_like(layer[factor])
            return self._sensitivity[key] * self._uncertainty[key]

        return entries("lora_E").flatten() + entries("lora_A").mean(dim=1) + entries("lora_B").mean(dim=0)

    def _choose(self, layers: Mapping[str, Mapping[str, nn.Parameter]], budget: int) -> dict[str, Tensor]:
        """Layer -> mask (rank,1) of exactly ``budget`` ranks in all; of equals, the earlier layer's stay."""
        scores = {name: self._score(name, layer) for name, layer in layers.items()}
        best = torch.cat(list(scores.values())).argsort(descending=True, stable=True)[:budget]
        kept = torch.zeros(sum(len(score) for score in scores.values()), dtype=torch.bool, device=best.device)
        kept[best] = True
        masks = torch.split(kept, [len(score) for score in scores.values()])
        return {name: mask.unsqueeze(1).clone() for name, mask in zip(scores, masks, strict=True)}
