"""The L1 ball cut by [0,1], against a constrained solver."""

import numpy as np
import pytest
import torch
from scipy.optimize import minimize

from temper.attacks.norms import distances, project
from temper.attacks.sparse import project_in_range, sparse_direction


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("eps", [0.05, 0.4, 1.5, 20.0])
def test_the_projection_is_the_nearest_point(seed: int, eps: float) -> None:
    images = (1.4 * torch.rand(1, 1, 2, 4, generator=seeded(seed)) - 0.2).clamp(0, 1).double()
    far = images + torch.randn(images.shape, generator=seeded(seed + 10)).double() / 2
    ours = (project_in_range(far, images, torch.full((1, 1, 1, 1), eps).double()) - images).flatten().numpy()
    clean, wanted = images.flatten().numpy(), (far - images).flatten().numpy()
    # The perturbation as the difference of two vectors that are not negative.
    solved = minimize(
        lambda parts: np.square(parts[:8] - parts[8:] - wanted).sum(),
        x0=np.full(16, 1e-3),
        jac=lambda parts: np.concatenate(
            [2 * (parts[:8] - parts[8:] - wanted), 2 * (wanted - parts[:8] + parts[8:])]
        ),
        bounds=[(0, 1 - value) for value in clean] + [(0, value) for value in clean],
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


@pytest.mark.parametrize("scale", [0.001, 0.3, 4.0])
def test_large_images_end_in_the_ball_nearer_than_by_clipping(scale: float) -> None:
    images = (1.4 * torch.rand(16, 3, 32, 32, generator=seeded()) - 0.2).clamp(0, 1)
    eps = torch.linspace(0, 30, 16).view(-1, 1, 1, 1)
    far = images + scale * torch.randn(images.shape, generator=seeded(1))
    found = project_in_range(far, images, eps)
    assert 0 <= found.min() <= found.max() <= 1
    assert (distances("l1", found, images) <= eps.flatten() * (1 + 1e-5) + 1e-4).all()
    assert torch.equal(found[0], images[0])
    clipped = project("l1", far, images, eps)
    assert (distances("l2", found, far) <= distances("l2", clipped, far) + 1e-4).all()
    assert torch.allclose(project_in_range(found, images, eps), found, atol=1e-5)


def test_a_sparse_direction_takes_the_largest_coordinates() -> None:
    gradient = torch.tensor([[3.0, -5.0, 1.0, 0.0], [0.0, 0.0, 0.0, 0.0], [float("nan"), 2.0, -4.0, 1.0]])
    direction = sparse_direction(gradient.view(3, 1, 2, 2), torch.tensor([2.0, 3.0, 0.4])).flatten(1)
    assert direction.tolist() == [[0.5, -0.5, 0, 0], [0, 0, 0, 0], [0, 0, -1, 0]]
