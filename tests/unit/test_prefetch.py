"""Sending ahead: what a GPU computes on next is on its way, and nothing else is read early."""

from collections.abc import Iterator

import pytest
import torch

from temper.batches import Batch
from temper.training.prefetch import one_ahead, prefetched


def batch(number: int) -> dict[str, Batch]:
    images = torch.full((2, 3, 4, 4), number, dtype=torch.uint8)
    return {"target": Batch(images, torch.tensor([number, 0]), torch.tensor([2 * number, 2 * number + 1]))}


@pytest.mark.parametrize("count", [0, 1, 2, 5])
def test_one_is_sent_while_the_one_before_is_used(count: int) -> None:
    story: list[str] = []

    def told(word: str, item: int) -> int:
        story.append(f"{word} {item}")
        return item

    items = one_ahead(range(count), lambda item: told("send", item), lambda item: told("receive", item))
    assert [told("use", item) for item in items] == list(range(count))
    # Each is on its way before the one before it is used, and the one after it is not.
    for number in range(count):
        last_sent = [line for line in story[: story.index(f"use {number}")] if line.startswith("send")][-1]
        assert last_sent == f"send {min(number + 1, count - 1)}"
        assert story.index(f"receive {number}") == story.index(f"use {number}") - 1


def test_on_a_cpu_batches_stay_as_they_are() -> None:
    batches = [batch(number) for number in range(3)]
    drawn: list[int] = []

    def feed() -> Iterator[dict[str, Batch]]:
        for number, one in enumerate(batches):
            drawn.append(number)
            yield one

    received = prefetched(feed(), torch.device("cpu"))
    assert next(received) is batches[0]
    assert drawn == [0]
    assert [id(one) for one in received] == [id(one) for one in batches[1:]]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_on_a_gpu_images_and_labels_arrive_and_rows_stay() -> None:
    device = torch.device("cuda", 0)
    for number, received in enumerate(prefetched(map(batch, range(20)), device)):
        one, expected = received["target"], batch(number)["target"]
        assert (one.images.device, one.labels.device, one.rows.device.type) == (device, device, "cpu")
        assert torch.equal(one.images.cpu(), expected.images)
        assert torch.equal(one.labels.cpu(), expected.labels)
