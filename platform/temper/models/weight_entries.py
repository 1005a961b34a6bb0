"""The entries of a foreign state dict: what belongs to the backbone, to the classifier, to normalization."""

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from temper.errors import ModelError
from temper.models.backbone import NoClassifier
from temper.models.efficientnet_names import rename_efficientnet

WRAPPERS = ("module.", "model.", "backbone.", "_orig_mod.", "1.")
"""Put before names by DataParallel, by a class around the network, by torch.compile, or by a Sequential of
normalization and network."""

RENAMED = (
    # Files for torchvision's DenseNet and ViT keep the names of its earlier versions, which it renames too.
    (re.compile(r"(denselayer\d+\.(?:norm|conv))\.([12]\.)"), r"\1\2"),
    (re.compile(r"\.mlp\.linear_1\."), ".mlp.0."),
    (re.compile(r"\.mlp\.linear_2\."), ".mlp.3."),
    # The pre-activation ResNets of the robustness papers keep their shortcut in a Sequential.
    (re.compile(r"\.shortcut\.0\."), ".shortcut."),
)
UNUSED = ("attacker.", "sub_block1.", "heads.source.")
"""Parts of files that take no part in the answer: a second copy of the network in those of the package
``robustness``, a stage that TRADES' Wide ResNet defines and never calls, and a head of ours."""

COUNTERS = {"n_averaged", "num_updates", "decay", "initted", "step", "steps"}
"""Numbers that those who average weights keep beside them."""

CLASSIFIERS = ("fc", "_fc", "linear", "classifier", "head", "logits", "heads.target", "heads.target.linear")
NORMALIZATION = re.compile(r"(?:(?:\w*norm\w*|0)\.)*(?:new_)?(mean|mu|std|sigma)")
NORMALIZER = re.compile(r"normaliz\w*\.")


@dataclass(frozen=True)
class Classifier:
    """A linear classifier: weight (C,D) and bias (C,)."""

    weight: Tensor
    bias: Tensor


@dataclass(frozen=True)
class Entries:
    """A weights file, sorted."""

    backbone: dict[str, Tensor]
    classifier: Classifier | None
    mean_std: tuple[Tensor, Tensor] | None
    """Each (1,3,1,1), for images in [0,1]."""


def sort_entries(tensors: Mapping[str, Tensor], network: nn.Module, where: str) -> Entries:
    """Sort a state dict by what ``network``, a headless one, expects; what is left over goes to ``backbone``.

    Raises:
        ModelError: two entries for one name; a normalization that is none of images in [0,1].
    """
    expected = network.state_dict()
    bare = rename_efficientnet(bare_names(tensors, expected, where), network, where)
    cuts = [name for name, module in network.named_modules() if isinstance(module, NoClassifier)]
    # Two classifiers are averaged, as in distilled transformers: neither alone is the network's answer.
    classifier = find_classifier(bare, [*cuts, *CLASSIFIERS]) if len(cuts) < 2 else None
    mean_std = _find_normalization(bare, expected, where)
    # Parts that this network is built without, such as the auxiliary classifiers of Inception.
    absent = {name for name in _tops(bare) if getattr(network, name, network) is None}
    dropped = tuple(f"{path}." for path in (*cuts, *CLASSIFIERS, *absent))
    backbone = {
        name: tensor
        for name, tensor in bare.items()
        if name in expected
        or not (name.startswith(dropped) or NORMALIZATION.fullmatch(name) or NORMALIZER.match(name))
    }
    return Entries(backbone, classifier, mean_std)


def bare_names(tensors: Mapping[str, Tensor], expected: Collection[str], where: str) -> dict[str, Tensor]:
    """The entries under their names without wrappers, as ``expected`` has them; unused parts left out.

    Raises:
        ModelError: two entries come to the same name.
    """
    bare: dict[str, Tensor] = {}
    for full, tensor in tensors.items():
        name = _bare_name(full, expected)
        is_unused = name.startswith(UNUSED) or (name in COUNTERS and tensor.numel() == 1)
        if is_unused and name not in expected:
            continue
        if name in bare:
            raise ModelError(f"model.weights: {where} has two entries for '{name}', one of them '{full}'")
        bare[name] = tensor
    return bare


def _bare_name(name: str, expected: Collection[str]) -> str:
    while name not in expected:
        wrapper = next((wrapper for wrapper in WRAPPERS if name.startswith(wrapper)), None)
        if wrapper is None:
            break
        name = name.removeprefix(wrapper)
    if name not in expected:
        for pattern, replacement in RENAMED:
            renamed = pattern.sub(replacement, name)
            if renamed in expected:
                return renamed
    return name


def find_classifier(bare: Mapping[str, Tensor], paths: list[str]) -> Classifier | None:
    """The first of ``paths`` under which a linear layer lies."""
    for path in paths:
        weight = bare.get(f"{path}.weight")
        if weight is not None and weight.ndim == 2:
            return Classifier(weight, bare.get(f"{path}.bias", weight.new_zeros(len(weight))))
    return None


def _tops(names: Collection[str]) -> set[str]:
    return {name.partition(".")[0] for name in names}


def _find_normalization(
    bare: Mapping[str, Tensor], expected: Collection[str], where: str
) -> tuple[Tensor, Tensor] | None:
    found: dict[str, Tensor] = {}
    for name, tensor in bare.items():
        match = NORMALIZATION.fullmatch(name)
        if match and name not in expected:
            found.setdefault({"mu": "mean", "sigma": "std"}.get(match[1], match[1]), tensor)
    if not found:
        return None
    values = {kind: tensor.float().flatten() for kind, tensor in found.items()}
    is_complete = values.keys() == {"mean", "std"} and all(len(v) in (1, 3) for v in values.values())
    if not is_complete or not _is_for_unit_range(values["mean"], values["std"]):
        shown = ", ".join(f"{kind} {[round(v, 4) for v in t.tolist()]}" for kind, t in values.items())
        raise ModelError(
            f"model.weights: {where} has a normalization that does not fit images in [0,1] "
            f"({shown[:200]}); expected a mean in 0..1 and a std above 0, of 1 or 3 channels, or neither"
        )
    mean, std = (values[kind].expand(3).reshape(1, 3, 1, 1).clone() for kind in ("mean", "std"))
    return mean, std


def _is_for_unit_range(mean: Tensor, std: Tensor) -> bool:
    return bool(((mean >= 0) & (mean <= 1)).all() and (std > 0).all() and torch.isfinite(std).all())


def load_exactly(module: nn.Module, tensors: Mapping[str, Tensor], where: str) -> None:
    """Load a state dict whose names and shapes are those of ``module``; nothing is loaded where they are not.

    Raises:
        ModelError: which entries are missing, unexpected, or of another shape.
    """
    expected = module.state_dict()
    # Weights files made before PyTorch 0.4.1 lack this counter, which nothing but momentum=None reads.
    missing = sorted(n for n in expected if n not in tensors and not n.endswith("num_batches_tracked"))
    unexpected = sorted(name for name in tensors if name not in expected)
    reshaped = [
        f"{name} {tuple(tensors[name].shape)} for {tuple(expected[name].shape)}"
        for name in expected
        if name in tensors and tensors[name].shape != expected[name].shape
    ]
    # PyTorch would drop their imaginary part with no more than a warning.
    mistyped = [name for name in expected if name in tensors and tensors[name].is_complex()]
    problems = [
        f"{title}: {', '.join(names[:5])}{f' and {len(names) - 5} more' if len(names) > 5 else ''}"
        for title, names in (
            ("missing", missing),
            ("unexpected", unexpected),
            ("wrong shape", reshaped),
            ("complex", mistyped),
        )
        if names
    ]
    if problems:
        if prefixes := _unknown_prefixes(missing, unexpected):
            problems.append(
                f"the missing ones are there with the prefix {' and '.join(prefixes)}, which is not "
                "understood: save them without it"
            )
        raise ModelError(f"{where}: weights of another backbone; {'; '.join(problems)}")
    # Into its own state dict, which carries the versions without which MNASNet does not load.
    expected.update(tensors)
    module.load_state_dict(expected)


def _unknown_prefixes(missing: list[str], unexpected: list[str]) -> list[str]:
    """What stands before the names of all that is missing, in what was not expected."""
    if not missing:
        return []
    ends = [name.removesuffix(missing[0]) for name in unexpected if name.endswith(f".{missing[0]}")]
    there = set(unexpected)
    return [start for start in ends if all(f"{start}{name}" in there for name in missing)][:3]
