"""What a backbone is, and how its parameters fall into groups."""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from torch import nn

from temper.errors import ModelError

Groups = dict[str, list[nn.Module | nn.Parameter]]
MeanStd = tuple[tuple[float, ...], tuple[float, ...]]


@dataclass(frozen=True)
class Backbone:
    """A headless network: normalised images (B,3,H,W) to features (B, ``num_features``)."""

    module: nn.Module
    num_features: int
    groups: Groups
    """Group name -> its modules and loose parameters, from the input to the features."""
    mean_std: MeanStd
    classifier: nn.Linear | None = None
    """The pretrained classifier on these features; ``None`` where nothing pretrained was loaded."""


class NoClassifier(nn.Identity):
    """Stands where a network's own classifier was: weights files have theirs under its name."""


def not_a_multiple(name: str, multiple: int, image_size: int) -> ModelError:
    """What to say of images that do not fall into whole patches."""
    lower = image_size // multiple * multiple
    sizes = " or ".join(str(size) for size in (lower, lower + multiple) if size)
    return ModelError(
        f"data.image_size: {name} needs a multiple of its patch size, {multiple} px, got {image_size}; "
        f"set {sizes}"
    )


def groups_by_name(network: nn.Module, group_of: Callable[[str], str]) -> Groups:
    """Groups in the order of their first parameter, where ``group_of`` names that of each parameter.

    A group lists the largest modules that lie in it as a whole, because adapters may put other parameters
    into a module, under its name.
    """
    groups: Groups = {group_of(name): [] for name, _ in network.named_parameters()}

    def visit(module: nn.Module, path: str) -> None:
        owners = {group_of(name) for name, _ in module.named_parameters(prefix=path)}
        if len(owners) == 1 and path:
            groups[owners.pop()].append(module)
        elif owners:
            for name, parameter in module.named_parameters(prefix=path, recurse=False):
                groups[group_of(name)].append(parameter)
            for name, child in module.named_children():
                visit(child, f"{path}.{name}" if path else name)

    visit(network, "")
    return groups


def groups_by_cuts(network: nn.Module, cuts: Iterable[str]) -> Groups:
    """``stem``, and a new group where the parameters of a module named in ``cuts`` begin.

    Every other parameter belongs to the group of the one before it. The groups are called ``block1``,
    ``block2``, ..., those of ResNets after their modules ``layer1``, ``layer2``, ...
    """
    starts = set(cuts)
    groups, current, number = {}, "stem", 0
    begun: str | None = None
    for name, _ in network.named_parameters():
        start = next((path for path in _paths(name) if path in starts), None)
        if start is not None and start != begun:
            begun, number = start, number + 1
            current = start if re.fullmatch(r"layer\d+", start) else f"block{number}"
        groups[name] = current
    return groups_by_name(network, groups.__getitem__)


def _paths(name: str) -> list[str]:
    """``a.b.c`` -> ``a``, ``a.b``, ``a.b.c``."""
    parts = name.split(".")
    return [".".join(parts[: count + 1]) for count in range(len(parts))]
