"""The geometry that attacks rest on, checked in every norm and against independent references."""

from typing import Any

import numpy as np
import pytest
import torch
from scipy.optimize import minimize

from temper.attacks.norms import L1_STEP_FRAC, project, random_point, steepest

EPS = {"linf": 0.1, "l2": 1.0, "l1": 6.0}
norms = pytest.mark.parametrize("norm", list(EPS))


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def lengths(norm: str, vectors: torch.Tensor) -> torch.Tensor:
    flat = vectors.double().flatten(1).abs()
    return {"linf": flat.amax(1), "l2": flat.square().sum(1).sqrt(), "l1": flat.sum(1)}[norm]


@pytest.fixture
def images() -> torch.Tensor:
    """Some pixels at the bounds, where clipping matters."""
    return (1.2 * torch.rand(8, 3, 9, 7, generator=seeded()) - 0.1).clamp(0, 1)


@norms
@pytest.mark.parametrize("scale", [0.001, 0.05, 2.0])
def test_projection_ends_in_the_ball_and_in_range_and_repeats(
    norm: Any, scale: float, images: torch.Tensor
) -> None:
    """Images of one batch are near and far, so that none may be treated as another."""
    scales = scale * torch.rand(8, 1, 1, 1, generator=seeded(1))
    perturbed = images + scales * torch.randn(images.shape, generator=seeded(2))
    once = project(norm, perturbed, images, EPS[norm])
    assert 0 <= once.min() <= once.max() <= 1
    assert lengths(norm, once - images).max() <= EPS[norm] * (1 + 1e-5)
    assert torch.allclose(project(norm, once, images, EPS[norm]), once, atol=1e-6)
    one_by_one = [
        project(norm, perturbed[i : i + 1], images[i : i + 1], EPS[norm]) for i in range(len(images))
    ]
    assert torch.equal(once, torch.cat(one_by_one))
    inside = (lengths(norm, perturbed - images) <= EPS[norm]).nonzero().flatten()
    assert torch.allclose(once[inside], perturbed[inside].clamp(0, 1), atol=1e-6)


@pytest.mark.parametrize("seed", range(6))
def test_l1_projection_is_the_nearest_point(seed: int) -> None:
    """Against a constrained solver: the point as the difference of two vectors that are not negative."""
    point = torch.randn(1, 1, 2, 4, generator=seeded(seed), dtype=torch.float64) / 10
    eps = 0.3 * float(lengths("l1", point))
    images = torch.full_like(point, 0.5)
    ours = (project("l1", images + point, images, eps) - images).flatten().numpy()
    far = point.flatten().numpy()
    solved = minimize(
        lambda parts: np.square(parts[:8] - parts[8:] - far).sum(),
        x0=np.full(16, 0.01),
        jac=lambda parts: np.concatenate(
            [2 * (parts[:8] - parts[8:] - far), 2 * (far - parts[:8] + parts[8:])]
        ),
        bounds=[(0, None)] * 16,
        constraints={
            "type": "ineq",
            "fun": lambda parts: eps - parts.sum(),
            "jac": lambda parts: -np.ones(16),
        },
        method="SLSQP",
        options={"ftol": 1e-14, "maxiter": 500},
    )
    assert solved.success
    assert np.allclose(ours, solved.x[:8] - solved.x[8:], atol=1e-5)


@norms
def test_steepest_has_unit_length_and_raises_a_linear_loss(norm: Any, images: torch.Tensor) -> None:
    gradient = torch.randn(images.shape, generator=seeded())
    gradient[0] = 0
    gradient[1] = float("nan")
    gradient[2, :, 1:] = 0
    direction = steepest(norm, gradient)
    assert lengths(norm, direction)[:2].tolist() == [0, 0]
    assert torch.allclose(lengths(norm, direction)[2:], torch.ones(6, dtype=torch.float64), atol=1e-5)
    assert ((gradient * direction).flatten(1).sum(1)[2:] > 0).all()
    assert torch.allclose(steepest(norm, 1e-3 * gradient), direction, atol=1e-5)


def test_a_step_in_l1_moves_the_largest_coordinates_that_can_move() -> None:
    gradient = torch.randn(4, 3, 20, 20, generator=seeded())
    images = torch.rand(4, 3, 20, 20, generator=seeded(1))
    largest = gradient.flatten(1).abs().argmax(1)
    images.flatten(1)[range(4), largest] = (gradient.flatten(1)[range(4), largest] > 0).float()
    free, bounded = steepest("l1", gradient).flatten(1), steepest("l1", gradient, images).flatten(1)
    assert ((free != 0).sum(1) == round(L1_STEP_FRAC * 1200)).all()
    assert ((bounded != 0).sum(1) == round(L1_STEP_FRAC * 1200)).all()
    assert (free[range(4), largest] != 0).all()
    assert (bounded[range(4), largest] == 0).all()
    kept = gradient.flatten(1).abs().masked_fill(free == 0, torch.inf).amin(1)
    left = gradient.flatten(1).abs().masked_fill(free != 0, 0).amax(1)
    assert (kept >= left).all()


@norms
def test_random_points_fill_the_ball_evenly(norm: Any) -> None:
    """In 3 dimensions a ball of half the radius holds an eighth of the points, and so does each octant."""
    images = torch.full((20_000, 3, 1, 1), 0.5)
    noise = random_point(norm, images, 0.4, seeded()) - images
    found = lengths(norm, noise) / 0.4
    assert found.max() <= 1 + 1e-5
    assert (found <= 0.5).double().mean() == pytest.approx(1 / 8, abs=0.01)
    assert (noise.flatten(1) > 0).all(1).double().mean() == pytest.approx(1 / 8, abs=0.01)
    if norm == "l1":
        # The simplex of one octant: coordinate i takes more than half of eps in an eighth of its volume.
        assert (noise.flatten(1)[:, 0].abs() > 0.2).double().mean() == pytest.approx(1 / 8, abs=0.01)


@norms
def test_random_points_are_in_range_and_follow_the_seed(norm: Any, images: torch.Tensor) -> None:
    first, again, other = (random_point(norm, images, EPS[norm], seeded(seed)) for seed in (3, 3, 4))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert 0 <= first.min() <= first.max() <= 1
    assert lengths(norm, first - images).min() > 0
    assert lengths(norm, first - images).max() <= EPS[norm] * (1 + 1e-5)
