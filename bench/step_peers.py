"""A PGD-10 training step against the same loop in which Foolbox, ART or torchattacks makes the examples.

Each peer is used as its documentation shows it. What its user could tune: hold the parameters still, for
Foolbox and ART compute their gradients in every step of the attack and throw them away; lay the network out
in channels_last; fold BatchNorm into the convolutions; have freed memory kept. torchattacks needs only the
last three.
"""

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from importlib import import_module
from pathlib import Path

import torch
from torch import Tensor, nn

from own_process import Side, in_turns
from row import Row, Skipped
from temper.host import use_cpu
from training_steps import EPS, STEP_SIZE, STEPS, Attack, Bare, Ours, Setting, pgd

SMALL = Setting("resnet20", 32, 128, 1)
LARGE = Setting("resnet18", 64, 32, 1)

SAME_PIXELS, SAME_LOSS = 0.999, 0.01
"""Least share of pixels equal within 1e-5, and greatest relative difference of losses."""


def foolbox_attack(model: nn.Module, images: Tensor, labels: Tensor, *, random_start: bool = True) -> Tensor:
    """LinfPGD of Foolbox; takes gradients of the parameters as well, and asks in the end who was fooled."""
    import foolbox

    attack = foolbox.attacks.LinfPGD(steps=STEPS, abs_stepsize=STEP_SIZE, random_start=random_start)
    _, clipped, _ = attack(foolbox.PyTorchModel(model, bounds=(0, 1)), images, labels, epsilons=EPS)
    return clipped


def torchattacks_attack(
    model: nn.Module, images: Tensor, labels: Tensor, *, random_start: bool = True
) -> Tensor:
    """PGD of torchattacks, with gradients of the images only, as ours."""
    import torchattacks

    attack = torchattacks.PGD(model, eps=EPS, alpha=STEP_SIZE, steps=STEPS, random_start=random_start)
    adversarial: Tensor = attack(images, labels)
    return adversarial


def art_attack(model: nn.Module, images: Tensor, labels: Tensor, *, random_start: bool = True) -> Tensor:
    """ProjectedGradientDescentPyTorch of ART: arrays in, arrays out; in the end it asks who was fooled."""
    from art.attacks.evasion import ProjectedGradientDescentPyTorch
    from art.estimators.classification import PyTorchClassifier

    classifier = PyTorchClassifier(
        model, nn.CrossEntropyLoss(), images.shape[1:], 10, clip_values=(0.0, 1.0), device_type="cpu"
    )
    attack = ProjectedGradientDescentPyTorch(
        classifier, eps=EPS, eps_step=STEP_SIZE, max_iter=STEPS, num_random_init=int(random_start),
        batch_size=len(images), verbose=False,
    )  # fmt: skip
    return torch.from_numpy(attack.generate(images.numpy(), labels.numpy()))


PEERS = (
    ("Foolbox", "foolbox", foolbox_attack, "<= 0.45", "<= 0.62"),
    ("ART", "art", art_attack, "<= 0.55", "<= 0.60"),
    ("torchattacks", "torchattacks", torchattacks_attack, "<= 0.65", "<= 0.92"),
)
"""Name, module, attack, and the goals of both settings."""


def rows(_folder: Path) -> Iterator[Row | Skipped]:
    """One for each peer and network, after a check that both do the same."""
    for number, setting in enumerate((SMALL, LARGE)):
        name = f"training step, PGD-{STEPS}: {setting.name}"
        for peer, module, attack, *goals in PEERS:
            try:
                import_module(module)
            except ModuleNotFoundError as error:
                yield Skipped(f"{name}, {peer}", f"{error.name} is not installed; the extra bench has it")
                continue
            check_same(setting, peer, attack)
            sides = in_turns(Side(ours_alone, (setting,)), Side(Bare, (setting, attack)))
            yield Row(name, peer, "CPU s", goals[number], *sides, rounds=5, warm_ups=0)


def ours_alone(setting: Setting) -> Ours:
    """In a process that is set up as a worker of ``temper train`` is."""
    use_cpu(1)
    return Ours(setting, pgd())


def check_same(setting: Setting, peer: str, attack: Attack) -> None:
    """Without random starts both make the same images, and have the same losses in two steps.

    Weights in float64: in float32 the sign of a gradient that is next to nothing depends on the order of
    additions (6 % of the pixels of an untrained resnet18 then go the other way within ten steps).

    Raises:
        SystemExit: they do not.
    """
    few = replace(setting, batch_size=8, num_steps=2, dtype=torch.float64)
    ours = Ours(few, pgd(random_start=False)).watched()
    bare = Bare(few, partial(attack, random_start=False)).watched()
    share, apart = 1.0, 0.0
    for number, ((my_loss, mine), (their_loss, theirs)) in enumerate(zip(ours, bare, strict=True)):
        if number == 0:  # later the weights are no longer the same to the last bit
            share = float(((mine - theirs).abs() < 1e-5).float().mean())
        apart = max(apart, abs(my_loss - their_loss) / their_loss)
    print(
        f"{peer}, {setting.name}: {share:.2%} of the pixels are equal, losses differ by {apart:.2%} at most"
    )
    if share < SAME_PIXELS or apart > SAME_LOSS:
        raise SystemExit(f"{peer} and ours do not do the same on {setting.name}")
