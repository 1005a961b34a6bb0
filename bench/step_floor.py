"""A PGD-10 training step against its floor: a clean step, and ten passes forward and back to the images.

Both sides are our kernels, so the ratio is what the rest of the attack and of the step costs.
"""

from collections.abc import Iterator
from pathlib import Path

from clock import cpu_seconds
from row import Row
from temper.attacks import attack_mode
from temper.attacks.base import cross_entropy_of, image_gradient
from temper.host import use_cpu
from temper.models import folded_copy
from training_steps import STEPS, Ours, Setting, pgd

SETTINGS = (Setting("resnet20", 32, 128, 1), Setting("resnet18", 64, 32, 1))


class Floor:
    """Seconds of a clean step and of ``STEPS`` gradients of the images, on the model that the attack uses."""

    def __init__(self, setting: Setting) -> None:
        self._clean = Ours(setting, None)
        batch = self._clean.batches[0]["target"]
        self._images, self._labels = batch.images.float() / 255, batch.labels
        self._model = setting.model()
        with attack_mode(self._model):
            self._attacked = folded_copy(self._model, self._images[:4])

    def __call__(self) -> float:
        step_s = self._clean()
        with attack_mode(self._model):
            loss_fn = cross_entropy_of(self._attacked, self._labels)
            return step_s + cpu_seconds(lambda: [image_gradient(loss_fn, self._images) for _ in range(STEPS)])


def rows(_folder: Path) -> Iterator[Row]:
    """One for each network."""
    use_cpu(1)
    for setting in SETTINGS:
        name = f"training step, PGD-{STEPS}: {setting.name}"
        yield Row(name, "its floor", "CPU s", "<= 1.05", Ours(setting, pgd()), Floor(setting))
