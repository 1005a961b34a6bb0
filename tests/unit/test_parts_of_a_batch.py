"""A pass of a part of a batch answers as the whole batch would: BatchNorm, dropout, stochastic depth."""

import copy
import threading
from collections.abc import Callable
from typing import Any

import pytest
import timm.layers
import torch
import torchvision.ops
from torch import Tensor, nn

from temper.models import WholeBatch

SIZE = 11
IMAGES = torch.randn(SIZE, 4, 5, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
PARTS = [range(4), range(4, 5), range(5, SIZE)]
"""Of three processes."""


def normed(**settings: Any) -> nn.Module:
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(4, 6, 3, padding=1, bias=False), nn.BatchNorm2d(6, **settings), nn.ReLU(), nn.Flatten(1),
        nn.Linear(150, 3), nn.BatchNorm1d(3, affine=False),
    ).double()  # fmt: skip
    if network[1].affine:
        nn.init.uniform_(network[1].weight, 0.5, 1.5)
    return network


class Processes:
    """Threads that wait for one another in ``gather``, as processes do."""

    def __init__(self, number: int) -> None:
        self._barrier, self._values = threading.Barrier(number, timeout=60), [torch.empty(0)] * number

    def gather(self, own: int) -> Callable[[Tensor], Tensor]:
        def of_all(values: Tensor) -> Tensor:
            self._values[own] = values
            self._barrier.wait()
            found = torch.stack(self._values)
            self._barrier.wait()
            return found

        return of_all

    def run(self, job: Callable[[int], None]) -> None:
        threads = [threading.Thread(target=job, args=(own,)) for own in range(len(self._values))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()


def answer(network: nn.Module, images: Tensor, whole: WholeBatch | None = None) -> dict[str, Tensor]:
    """Outputs, gradients and statistics; the loss couples every output with its own number alone."""
    images = images.clone().requires_grad_()
    if whole is None:
        outputs = network(images)
    else:
        with whole:
            outputs = network(images)
    (outputs**3 + outputs).sum().backward()
    assert images.grad is not None
    found = {"outputs": outputs.detach(), "images": images.grad}
    found |= {f"grad {n}": p.grad for n, p in network.named_parameters() if p.grad is not None}
    return found | {f"statistics {n}": value.clone() for n, value in network.named_buffers()}


@pytest.mark.parametrize(
    "settings", [{}, {"affine": False}, {"momentum": None}, {"momentum": 0.4, "eps": 0.1}]
)
def test_batch_norm_over_processes_is_that_of_one(settings: dict[str, Any]) -> None:
    network = normed(**settings).train()
    expected = answer(copy.deepcopy(network), IMAGES)
    copies, found = [copy.deepcopy(network) for _ in PARTS], [{} for _ in PARTS]
    processes = Processes(len(PARTS))

    def job(own: int) -> None:
        whole = WholeBatch(PARTS[own], SIZE, processes.gather(own))
        found[own] = answer(copies[own], IMAGES[PARTS[own]], whole)

    processes.run(job)
    for key, value in expected.items():
        if key in ("outputs", "images"):
            assert torch.allclose(torch.cat([one[key] for one in found]), value, atol=1e-10), key
        elif key.startswith("grad"):
            assert torch.allclose(sum(one[key] for one in found), value, atol=1e-9), key
        else:
            assert all(torch.allclose(one[key], value, atol=1e-10) for one in found), key


def test_stand_ins_count_nowhere() -> None:
    """Though they take part in every sum of the others, forward and back."""
    network = normed().train()
    expected = answer(copy.deepcopy(network), IMAGES)
    found = [{}, {}]
    copies = [copy.deepcopy(network) for _ in found]
    processes = Processes(2)
    rows: list[list[int | None]] = [[*range(SIZE), None], [None, None]]
    images = [torch.cat([IMAGES, torch.full_like(IMAGES[:1], 9.0)]), torch.full_like(IMAGES[:2], -7.0)]

    def job(own: int) -> None:
        found[own] = answer(copies[own], images[own], WholeBatch(rows[own], SIZE, processes.gather(own)))

    processes.run(job)
    assert torch.allclose(found[0]["outputs"][:SIZE], expected["outputs"])
    assert torch.allclose(found[0]["images"][:SIZE], expected["images"], atol=1e-10)
    assert not found[1]["images"].any()
    for key in ("statistics 1.running_mean", "statistics 5.running_var"):
        assert torch.allclose(found[1][key], expected[key])


def test_batch_norm_in_half_precision_keeps_its_statistics_exact() -> None:
    norm = nn.BatchNorm2d(4)
    images = IMAGES.to(torch.bfloat16)
    with WholeBatch(range(SIZE), SIZE, lambda values: values[None]):
        found = norm(images)
    assert found.dtype == torch.bfloat16
    assert torch.allclose(norm.running_mean, 0.1 * images.float().mean((0, 2, 3)), atol=1e-6)
    assert torch.allclose(found.float(), nn.BatchNorm2d(4)(images.float()), atol=0.03)


def test_statistics_that_are_held_still_are_left_alone() -> None:
    network = normed().eval()

    def nobody(values: Tensor) -> Tensor:
        raise AssertionError("nobody is asked")

    with WholeBatch(PARTS[0], SIZE, nobody):
        assert torch.equal(network(IMAGES[:4]), network(IMAGES)[:4])


@pytest.mark.parametrize(
    "layer",
    [
        nn.Dropout(0.5),
        nn.Dropout(0.5, inplace=True),
        nn.Dropout2d(0.5),
        timm.layers.DropPath(0.4),
        torchvision.ops.StochasticDepth(0.4, "row"),
        torchvision.ops.StochasticDepth(0.4, "batch"),
    ],
    ids=lambda layer: type(layer).__name__,
)
@pytest.mark.parametrize("is_last", [False, True])
def test_an_image_loses_the_same_in_whichever_part(layer: nn.Module, is_last: bool) -> None:
    images = IMAGES.float() + 3
    if is_last:
        images = images.contiguous(memory_format=torch.channels_last)
    torch.manual_seed(1)
    expected = layer(images.clone())
    assert not torch.equal(expected, images)
    for rows in [*PARTS, [7, 2, 0]]:
        torch.manual_seed(1)
        with WholeBatch(rows, SIZE, lambda values: values[None]):
            assert torch.equal(layer(images[list(rows)].clone()), expected[list(rows)])
