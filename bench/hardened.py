"""Small models for benchmarks of evaluation: one trained plainly, one under attack, on the same images."""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from temper.attacks import PGD, attack_mode
from temper.models import ModelSpec, TaskModel, build_model

NUM_TRAIN = 1200
BATCH_SIZE = 64


@dataclass(frozen=True)
class Case:
    """Models and test images: uint8 (N,3,S,S) with labels (N,)."""

    weak: TaskModel
    robust: TaskModel
    images: Tensor
    labels: Tensor
    eps: float


def digits_case(size: int = 8, eps: float = 0.1, epochs: int = 12, count: int = 256) -> Case:
    """scikit-learn's ten digits at ``size`` pixels, and two resnet8."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    pixels = torch.from_numpy(bunch.images / 16).float()[:, None].repeat(1, 3, 1, 1)
    if size != 8:
        pixels = F.interpolate(pixels, (size, size), mode="bilinear", align_corners=False)
    order = np.random.default_rng(0).permutation(len(pixels))
    images = (pixels[order] * 255).round().to(torch.uint8)
    labels = torch.from_numpy(bunch.target)[order]
    train = images[:NUM_TRAIN].float() / 255, labels[:NUM_TRAIN]
    weak, robust = (fit(*train, 10, size, strength, epochs) for strength in (0.0, eps))
    return Case(weak, robust, images[NUM_TRAIN:][:count], labels[NUM_TRAIN:][:count], eps)


def digits_model(size: int, num_classes: int = 10) -> TaskModel:
    """A resnet8, untrained."""
    classes = {"target": [str(label) for label in range(num_classes)]}
    return build_model(ModelSpec(backbone="resnet8"), classes, image_size=size, seed=0).eval()


def fit(images: Tensor, labels: Tensor, num_classes: int, size: int, eps: float, epochs: int) -> TaskModel:
    """A resnet8 trained on float images, under PGD-5 where ``eps`` is not 0."""
    model = digits_model(size, num_classes)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4)
    steps = epochs * (len(images) // BATCH_SIZE)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=0.1, total_steps=steps)
    generator = torch.Generator().manual_seed(0)
    attack = PGD(eps=eps, steps=5)
    for _ in range(epochs):
        order = torch.randperm(len(images), generator=generator)
        for start in range(0, len(images) - BATCH_SIZE + 1, BATCH_SIZE):
            rows = order[start : start + BATCH_SIZE]
            batch = images[rows]
            if eps:
                with attack_mode(model):
                    batch = attack.perturb(model, batch, labels[rows], generator)
            model.train()
            optimizer.zero_grad()
            F.cross_entropy(model(batch), labels[rows]).backward()
            optimizer.step()
            schedule.step()
    return model.eval()
