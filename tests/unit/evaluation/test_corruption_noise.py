"""The random numbers of corruptions, and their noise, against their distributions."""

import numpy as np
import pytest
import scipy.stats
import torch

from temper.evaluation.corruptions import corrupt, noise
from temper.evaluation.corruptions.draws import Draws, mix


def draws(count: int = 1, seed: int = 0) -> Draws:
    return Draws(torch.arange(count), seed, "test")


# --- random numbers ---------------------------------------------------------------------------


def test_mixing_equals_unsigned_arithmetic() -> None:
    values = np.random.default_rng(0).integers(0, 2**32, 1000, dtype=np.uint32)
    expected = values.copy()
    expected ^= expected >> 16
    expected *= np.uint32(0x7FEB352D)
    expected ^= expected >> 15
    expected *= np.uint32(0x846CA68B)
    expected ^= expected >> 16
    mixed = mix(torch.from_numpy(values.view(np.int32).copy()))
    assert np.array_equal(mixed.numpy().view(np.uint32), expected)


def test_draws_have_their_distributions_and_no_correlation() -> None:
    stream = draws(40)
    uniform, normal = stream.uniform(2000).double(), stream.normal(2001).double()
    assert normal.shape == (40, 2001)
    assert scipy.stats.kstest(uniform.flatten().numpy(), "uniform").pvalue > 0.01
    assert scipy.stats.kstest(normal.flatten().numpy(), "norm").pvalue > 0.01
    between_images = np.corrcoef(uniform.numpy())[np.triu_indices(40, 1)]
    assert np.abs(between_images).max() < 5 / 2000**0.5
    assert between_images.std() == pytest.approx(2000**-0.5, rel=0.15)
    assert abs(np.corrcoef(uniform[:, 1:].flatten(), uniform[:, :-1].flatten())[0, 1]) < 4 / 80000**0.5
    counts = np.bincount((stream.integers(6000, low=-2, high=1) + 2).flatten())
    assert len(counts) == 4
    assert scipy.stats.chisquare(counts).pvalue > 0.01


# --- noise ------------------------------------------------------------------------------------


def test_gaussian_noise_has_the_published_deviation() -> None:
    images = torch.full((4, 3, 64, 64), 128, dtype=torch.uint8)
    images[:, 0] = 127
    changed = (corrupt("gaussian_noise", 3, images, torch.arange(4), 0).double() - images) / 255
    # Tiny-ImageNet-C, 64 pixels: 0.12.
    assert float(changed.std()) == pytest.approx(0.12, rel=0.02)
    assert abs(float(changed.mean())) < 0.002


def test_shot_noise_counts_photons() -> None:
    levels = torch.tensor([0, 1, 51, 128, 255]).repeat_interleave(20000)
    images = (levels.float() / 255).expand(1, 3, 1, -1)
    counts = noise.shot_noise(images, draws(), photons=12.0)[0, 0, 0].double() * 12
    for level in (1, 51, 128, 255):
        found = counts[levels == level].numpy().round().astype(int)
        rate = level / 255 * 12
        assert found.mean() == pytest.approx(rate, rel=0.12 if level == 1 else 0.02)
        edges = [scipy.stats.poisson.ppf(q, rate) for q in (0.2, 0.5, 0.8)]
        for edge in edges:
            assert (found <= edge).mean() == pytest.approx(scipy.stats.poisson.cdf(edge, rate), abs=0.015)
    assert (counts[levels == 0] == 0).all()


def test_impulse_noise_is_half_black_half_white() -> None:
    images = torch.full((8, 3, 64, 64), 100, dtype=torch.uint8)
    images[:, 2] = 120
    corrupted = corrupt("impulse_noise", 5, images, torch.arange(8), 0)
    assert set(corrupted.unique().tolist()) == {0, 100, 120, 255}
    # Tiny-ImageNet-C: a share of 0.14.
    for value in (0, 255):
        assert float((corrupted == value).double().mean()) == pytest.approx(0.07, rel=0.05)


def test_rician_noise_lifts_the_mean_square() -> None:
    images = torch.tensor([0.0, 0.3, 0.6]).view(3, 1, 1, 1).expand(3, 3, 100, 100)
    corrupted = noise.rician_noise(images, draws(3), std=0.1).double()
    squares = corrupted.square().mean((1, 2, 3))
    assert squares.tolist() == pytest.approx([0.02, 0.11, 0.38], rel=0.04)
    assert float(corrupted[0].mean()) == pytest.approx(0.1 * (np.pi / 2) ** 0.5, rel=0.03)
