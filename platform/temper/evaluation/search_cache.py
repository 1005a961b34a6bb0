"""What members found for one eps and is good for the next."""

import torch
from torch import Tensor, nn

from temper.attacks import SearchMember
from temper.spec import Threat


class SearchCache:
    """Of the images of a chunk, in one norm; what each member finds is kept."""

    def __init__(self) -> None:
        self._kept: dict[str, tuple[Tensor, Tensor]] = {}

    def run(
        self,
        member: SearchMember,
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
        is_known, kept = self._kept[key]
        new = ~is_known[rows]
        if new.any():
            chosen = new.to(images.device)
            found = member.search(model, images[chosen], labels[chosen], threat.norm)
            kept[rows[new]] = found.detach().cpu()
            is_known[rows[new]] = True
        return member.within(images, kept[rows].to(images.device), threat)
