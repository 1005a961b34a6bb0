from importlib import import_module

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import torchvision.transforms.v2.functional as tvf

from temper.batches import ResidentBatches, augment, warp
from temper.batches.augment import relight
from temper.data import AugmentSpec, Images, Plan
from temper.records import hash_of_recipe


@pytest.mark.parametrize("num_rows", [7, 64, 65, 100])
@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_ranks_share_an_epoch_without_overlap(num_rows: int, world_size: int) -> None:
    shares = []
    for rank in range(world_size):
        plan = Plan(num_rows, 16, seed=3, rank=rank, world_size=world_size)
        shares.append([part.tolist() for part in plan.share(plan.order(2))])
    assert len({len(share) for share in shares}) == 1
    seen = [row for share in shares for part in share for row in part]
    assert len(seen) == len(set(seen))
    assert num_rows - len(seen) <= 1


def test_one_rank_sees_every_image_once() -> None:
    plan = Plan(65 + 1, 16, seed=0)
    assert sorted(row for part in plan.share(plan.order(0)) for row in part) == list(range(66))


def images(count: int) -> Images:
    pixels = np.arange(count, dtype=np.uint8)[:, None, None, None] * np.ones((1, 3, 8, 8), np.uint8)
    return Images(images=pixels, labels=np.arange(count) % 3, rows=np.arange(count) * 10)


def test_batches_carry_their_rows_and_change_with_the_epoch() -> None:
    batches = ResidentBatches(images(20), batch_size=8, seed=0)
    epochs = [list(batches.epoch(e)) for e in (0, 1, 0)]
    for batch in epochs[0]:
        assert torch.equal(batch.images[:, 0, 0, 0].long() * 10, batch.rows)
        assert torch.equal(batch.labels, batch.rows // 10 % 3)
    orders = [torch.cat([batch.rows for batch in epoch]) for epoch in epochs]
    assert torch.equal(orders[0], orders[2])
    assert not torch.equal(orders[0], orders[1])


def test_a_cycle_goes_on_wherever_it_starts() -> None:
    batches = ResidentBatches(images(20), batch_size=8, seed=0)
    endless = batches.cycle(0)
    first = [next(endless).rows for _ in range(9)]
    later = batches.cycle(5)
    assert all(torch.equal(next(later).rows, first[number]) for number in range(5, 9))


def test_augmentation_in_range_per_image_and_repeatable() -> None:
    pixels = torch.randint(0, 256, (1, 3, 16, 16), dtype=torch.uint8).expand(6, -1, -1, -1)
    first, again = (augment(pixels, AugmentSpec(), torch.Generator().manual_seed(seed)) for seed in (0, 0))
    assert torch.equal(first, again)
    assert first.min() >= 0
    assert first.max() <= 1
    assert len({tuple(image.flatten().tolist()) for image in first}) == 6
    assert torch.equal(augment(pixels, None), pixels.float() / 255)
    still = AugmentSpec(rotation_degrees=0, shift_frac=0, horizontal_flip=False)
    assert torch.allclose(augment(pixels, still), pixels.float() / 255, atol=1e-5)


def test_warp_equals_torchvision_inside_the_image() -> None:
    pixels = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    angle, one, none = torch.tensor([0.3]), torch.ones(1), torch.zeros(1, 2)
    ours = warp(pixels, angle, none, one)
    theirs = tvf.rotate(pixels, float(torch.rad2deg(angle)), interpolation=tvf.InterpolationMode.BILINEAR)
    assert torch.allclose(ours[..., 8:24, 8:24], theirs[..., 8:24, 8:24], atol=1e-5)
    flipped = warp(pixels, torch.zeros(1), none, -one)
    assert torch.allclose(flipped, tvf.horizontal_flip(pixels), atol=1e-5)
    shifted = warp(pixels, torch.zeros(1), torch.tensor([[0.25, 0.0]]), one)
    assert torch.allclose(shifted[..., :28], pixels[..., 4:], atol=1e-5)


def test_warp_is_affine_grid_and_grid_sample_however_it_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = torch.rand(7, 3, 24, 32, generator=torch.Generator().manual_seed(0))
    angles, flips = torch.linspace(-0.5, 0.5, 7), torch.tensor([1.0, -1, 1, -1, 1, -1, 1])
    shifts = torch.linspace(-0.4, 0.4, 14).view(7, 2)
    cos, sin = angles.cos(), angles.sin()
    rows = (
        torch.stack([flips * cos, -flips * sin * 24 / 32, shifts[:, 0]], 1),
        torch.stack([sin * 32 / 24, cos, shifts[:, 1]], 1),
    )
    grid = F.affine_grid(torch.stack(rows, 1), [7, 3, 24, 32], align_corners=False)
    expected = F.grid_sample(pixels, grid, padding_mode="border", align_corners=False)
    whole = warp(pixels, angles, shifts, flips)
    assert torch.allclose(whole, expected, atol=1e-5)
    for images in (1, 3):
        cached = images * 24 * 32 // torch.get_num_threads()
        monkeypatch.setattr(import_module("temper.batches.augment"), "CACHED_PIXELS", cached)
        assert torch.equal(warp(pixels, angles, shifts, flips), whole)


def test_warp_is_torchvisions_affine_whatever_the_parameters() -> None:
    generator = torch.Generator().manual_seed(1)
    pixels = torch.rand(16, 3, 32, 32, generator=generator)
    angles = torch.rand(16, generator=generator) - 0.5
    shifts = (torch.rand(16, 2, generator=generator) - 0.5) * 0.8
    flips = 1 - 2 * torch.randint(0, 2, (16,), generator=generator).float()
    ours = warp(pixels, angles, shifts, flips)
    for image, angle, shift, flip, warped in zip(pixels, angles, shifts, flips, ours, strict=True):
        # torchvision cannot continue the border, so it is continued beforehand; it shifts after rotating.
        source = tvf.pad(image if flip > 0 else tvf.horizontal_flip(image), [32] * 4, padding_mode="edge")
        right, down = float(shift[0] * flip) * 16, float(shift[1]) * 16
        cos, sin = float(angle.cos()), float(angle.sin())
        theirs = tvf.affine(
            source,
            angle=-float(angle.rad2deg()),
            translate=[-(cos * right + sin * down), -(cos * down - sin * right)],
            scale=1.0,
            shear=[0.0, 0.0],
            interpolation=tvf.InterpolationMode.BILINEAR,
        )
        assert torch.allclose(warped, tvf.center_crop(theirs, [32, 32]), atol=1e-5)


def test_warp_of_images_that_are_not_square_samples_where_affine_grid_says() -> None:
    generator = torch.Generator().manual_seed(0)
    pixels = torch.rand(2, 3, 12, 20, generator=generator)
    angles, shifts = torch.tensor([0.4, -1.2]), torch.tensor([[0.3, -0.2], [0.1, 0.5]])
    cos, sin, none = angles.cos(), angles.sin(), torch.ones(2)
    maps = torch.stack(
        [
            torch.stack([cos, -sin * 12 / 20, shifts[:, 0]], dim=1),
            torch.stack([sin * 20 / 12, cos, shifts[:, 1]], dim=1),
        ],
        dim=1,
    )
    grid = F.affine_grid(maps, [2, 3, 12, 20], align_corners=False)
    expected = F.grid_sample(pixels, grid, padding_mode="border", align_corners=False)
    assert torch.allclose(warp(pixels, angles, shifts, none), expected, atol=1e-5)


def test_a_zoom_shows_more_on_each_axis() -> None:
    pixels = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    zooms, none = torch.tensor([1.25, 0.8]), torch.zeros(2)
    maps = torch.zeros(2, 2, 3)
    maps[:, 0, 0] = maps[:, 1, 1] = zooms
    grid = F.affine_grid(maps, [2, 3, 16, 16], align_corners=False)
    expected = F.grid_sample(pixels, grid, padding_mode="border", align_corners=False)
    assert torch.allclose(warp(pixels, none, torch.zeros(2, 2), torch.ones(2), zooms), expected, atol=1e-5)


def test_light_changes_contrast_then_brightness_then_gamma() -> None:
    images = torch.tensor([0.2, 0.4]).view(1, 1, 1, 2).repeat(2, 3, 1, 1)
    relight(images, torch.tensor([2.0, 1.0]), torch.tensor([0.1, -0.3]), torch.tensor([1.0, 2.0]))
    assert torch.allclose(images[0, 0, 0], torch.tensor([0.2, 0.6]), atol=1e-6)
    assert torch.allclose(images[1, 0, 0], torch.tensor([0.0, 0.01]), atol=1e-6)


def test_light_and_zoom_are_drawn_after_what_was_drawn_before_there_were_any() -> None:
    pixels = torch.randint(0, 256, (6, 3, 16, 16), dtype=torch.uint8)
    lit = AugmentSpec(contrast_frac=0.3, brightness=0.2, gamma=0.3)

    def drawn(spec: AugmentSpec) -> torch.Tensor:
        return augment(pixels, spec, torch.Generator().manual_seed(0))

    assert torch.equal(drawn(lit), drawn(lit))
    assert drawn(lit).min() >= 0
    assert drawn(lit).max() <= 1
    assert not torch.allclose(drawn(lit), drawn(AugmentSpec()), atol=1e-2)
    assert torch.allclose(drawn(AugmentSpec(gamma=1e-9)), drawn(AugmentSpec()), atol=1e-6)


def test_recipes_from_before_light_and_zoom_keep_their_hash() -> None:
    old = {"data": {"augment": {"rotation_degrees": 5.0, "shift_frac": 0.0, "horizontal_flip": True}}}
    new = {"data": {"augment": {**AugmentSpec().model_dump(), **old["data"]["augment"]}}}
    assert hash_of_recipe(old) == hash_of_recipe(new)
    new["data"]["augment"]["gamma"] = 0.2
    assert hash_of_recipe(old) != hash_of_recipe(new)
