"""Passes forward and back that are recorded as CUDA graphs and replayed.

Of a small network a GPU computes a pass sooner than Python can ask for its kernels one by one; a graph is
asked for at once. The kernels, and so the answers, are the same.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

Answer = Callable[[Tensor], Tensor]
"""Images (B,3,H,W) in [0,1] to logits or features (B,D)."""

WARM_UPS = 3
"""Passes before one is recorded: libraries set themselves up in the first."""
WATCHED = "thread_local"
"""Only calls of this thread may spoil a recording: NCCL's own thread asks for its events at any time."""
TOLERANCE = 1e-3
"""By which replayed answers and gradients may differ, relative to the largest."""


class Recording:
    """Both passes on images of one shape. Whatever they read lies where it lay, and may change in place."""

    def __init__(self, answer: Answer, images: Tensor, parameters: Sequence[Tensor] = ()) -> None:
        """The way back leads to ``parameters``, or where there are none to the images.

        Raises whatever ``answer`` raises that cannot be recorded; for one, if it waits for the GPU.
        """
        self._images = images.detach().clone().requires_grad_(not parameters)
        self._sources = list(parameters) or [self._images]
        self._warm_up(answer)
        self._forward, self._backward = torch.cuda.CUDAGraph(), torch.cuda.CUDAGraph()
        with _generator_kept(images.device):
            with torch.cuda.graph(self._forward, capture_error_mode=WATCHED):
                answered = answer(self._images)
            self._direction = torch.zeros_like(answered)
            with torch.cuda.graph(self._backward, self._forward.pool(), capture_error_mode=WATCHED):
                self._gradients = self._back_from(answered)
        self._answered: Tensor = answered.detach()
        self.turn = 0
        """Passes forward so far: a pass back belongs to the latest."""

    def forward(self, images: Tensor) -> Tensor:
        """What ``answer`` gives."""
        self._images.detach().copy_(images)
        self._forward.replay()
        self.turn += 1
        return self._answered.clone()

    def backward(self, direction: Tensor) -> list[Tensor | None]:
        """The gradients of the latest images, or of the parameters, from that of the answers."""
        self._direction.copy_(direction)
        self._backward.replay()
        # Times one is a copy: of all tensors at once.
        copies = iter(torch._foreach_mul([g for g in self._gradients if g is not None], 1.0))
        return [None if gradient is None else next(copies) for gradient in self._gradients]

    def agrees(self, answer: Answer, images: Tensor) -> bool:
        """Whether a replay gives what ``answer`` does, up to rounding.

        Other images come before: what counts its calls, or reads what lies elsewhere now, is found out.
        """
        points = images.detach().requires_grad_(self._sources[0] is self._images)
        sources = [points] if points.requires_grad else self._sources
        draws = torch.cuda.get_rng_state(images.device)
        answered = answer(points)
        direction = torch.softmax(answered.detach().float(), 1).sub_(1 / answered.shape[1]).to(answered.dtype)
        gradients = torch.autograd.grad(answered, sources, direction, allow_unused=True)
        self.forward(1 - points.detach())
        torch.cuda.set_rng_state(draws, images.device)
        replayed = self.forward(points.detach()), *self.backward(direction)
        return all(map(_is_near, replayed, (answered.detach(), *gradients)))

    def _warm_up(self, answer: Answer) -> None:
        """On a stream of its own, as recording does."""
        current, aside = torch.cuda.current_stream(), torch.cuda.Stream()  # type: ignore[no-untyped-call]
        aside.wait_stream(current)
        with torch.cuda.stream(aside):
            for _ in range(WARM_UPS):
                answered = answer(self._images)
                self._direction = torch.zeros_like(answered)
                self._back_from(answered)
        current.wait_stream(aside)

    def _back_from(self, answered: Tensor) -> tuple[Tensor | None, ...]:
        return torch.autograd.grad(answered, self._sources, self._direction, allow_unused=True)


def recorded(answer: Answer, images: Tensor, parameters: Sequence[Tensor] = ()) -> Recording | None:
    """``None`` where there is no memory for it, or the replay is not what ``answer`` gives.

    Random numbers go on afterwards as if nothing had been drawn.
    """
    draws = torch.cuda.get_rng_state(images.device)
    try:
        recording = Recording(answer, images, parameters)
        return recording if recording.agrees(answer, images) else None
    except Exception:  # whatever a foreign model does while it is recorded, it can be asked itself
        torch.cuda.empty_cache()  # of what a recording without an end has held
        return None
    finally:
        torch.cuda.set_rng_state(draws, images.device)


@contextmanager
def _generator_kept(device: torch.device) -> Iterator[None]:
    """Random numbers can be drawn afterwards, whatever happens inside.

    A recording that fails leaves the generator of its device in a state in which it can give none.
    """
    generator = torch.cuda.default_generators[device.index or 0]
    spare = generator.clone_state()
    try:
        yield
    except BaseException:
        generator.graphsafe_set_state(spare)
        raise


def _is_near(mine: Tensor | None, theirs: Tensor | None) -> bool:
    if mine is None or theirs is None:
        return mine is theirs
    return bool((mine - theirs).abs().max() <= TOLERANCE * theirs.abs().max())


class Places:
    """Where tensors lie in memory, as last seen."""

    def __init__(self) -> None:
        self._seen: list[int] = []

    def have_changed(self, tensors: Iterator[Tensor]) -> bool:
        """Since the last call."""
        now = [tensor.data_ptr() for tensor in tensors]
        before, self._seen = self._seen, now
        return now != before


Key = tuple[Any, ...]


def key_of(images: Tensor) -> Key:
    """What a recording is for."""
    return (*images.shape, images.dtype, images.device)
