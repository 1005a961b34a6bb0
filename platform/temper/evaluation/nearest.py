"""The nearest points that members found, for the next eps: it changes only where the way to them is cut."""

import torch
from torch import Tensor, nn

from temper.evaluation.members import NearestMember
from temper.spec import Threat


class NearestPoints:
    """Of the N images of a chunk, in one norm; each member's points are kept as they are found."""

    def __init__(self) -> None:
        self._kept: dict[str, tuple[Tensor, Tensor]] = {}

    def run(
        self,
        member: NearestMember,
        model: nn.Module,
        images: Tensor,
        labels: Tensor,
        threat: Threat,
        rows: Tensor,
        size: int,
    ) -> Tensor:
        """What ``member.run`` returns for ``images`` (B,3,H,W), the ``rows`` (B,) of ``size`` images."""
        key = member.model_dump_json()
        if key not in self._kept:
            self._kept[key] = torch.zeros(size, dtype=torch.bool), torch.empty(size, *images.shape[1:])
        is_known, points = self._kept[key]
        new = ~is_known[rows]
        if new.any():
            chosen = new.to(images.device)
            found = member.nearest(model, images[chosen], labels[chosen], threat.norm)
            points[rows[new]] = found.detach().cpu()
            is_known[rows[new]] = True
        return member.cut(images, points[rows].to(images.device), threat)
