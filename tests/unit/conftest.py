import pytest
import torch

from temper.models import ModelSpec, TaskModel, build_model


@pytest.fixture
def model() -> TaskModel:
    """A small network with two heads, in eval mode, deterministic."""
    classes = {"target": ["a", "b", "c"], "source": ["x", "y"]}
    return build_model(ModelSpec(backbone="resnet8"), classes, image_size=16, seed=0).eval()


@pytest.fixture
def batch() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.rand(12, 3, 16, 16, generator=generator), torch.randint(0, 3, (12,), generator=generator)
