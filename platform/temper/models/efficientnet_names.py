"""EfficientNets from files of lukemelas/EfficientNet-PyTorch, renamed as in timm.

B0 to B7 and Lite: Tan & Le 2019, arXiv:1905.11946. The files number the blocks through; timm groups them into
stages. Padding is TensorFlow's (SAME), as in timm's networks ``tf_efficientnet_*`` alone.
"""

from collections.abc import Mapping

from torch import Tensor, nn

from temper.errors import ModelError

STEM = "_conv_stem.weight"
"""An entry that such files have, and no others."""
TOP = {
    "_conv_stem": "conv_stem",
    "_bn0": "bn1",
    "_conv_head": "conv_head",
    "_bn1": "bn2",
    "_fc": "classifier",
}
SQUEEZE = {"_se_reduce": "se.conv_reduce", "_se_expand": "se.conv_expand"}
SEPARABLE = {
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn1",
    "_project_conv": "conv_pw",
    "_bn2": "bn2",
    **SQUEEZE,
}
"""Parts of a block that does not widen its features first."""
INVERTED = {
    "_expand_conv": "conv_pw",
    "_bn0": "bn1",
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn2",
    "_project_conv": "conv_pwl",
    "_bn2": "bn3",
    **SQUEEZE,
}


def rename_efficientnet(tensors: Mapping[str, Tensor], network: nn.Module, where: str) -> dict[str, Tensor]:
    """The entries under the names of ``network``, where they are such a file's and it is one of timm's.

    An entry that ``network`` has no place for keeps its name; others come back as they are.

    Raises:
        ModelError: the network pads otherwise, so that it would be another function with these weights.
    """
    parts = dict(network.named_modules())
    if STEM not in tensors or "conv_stem" not in parts or "blocks" not in parts:
        return dict(tensors)
    # timm's class for convolutions with the padding of TensorFlow.
    if type(parts["conv_stem"]).__name__ != "Conv2dSame":
        raise ModelError(
            f"model.weights: {where} is of an EfficientNet with the padding of TensorFlow; set "
            "model.backbone to the network of that name with tf_, such as timm/tf_efficientnet_b0"
        )
    blocks = [
        (f"{stage_name}.{name}", block)
        for stage_name, stage in parts["blocks"].named_children()
        for name, block in stage.named_children()
    ]
    return {_renamed(name, blocks): tensor for name, tensor in tensors.items()}


def _renamed(name: str, blocks: list[tuple[str, nn.Module]]) -> str:
    first, _, rest = name.partition(".")
    if first != "_blocks":
        return f"{TOP[first]}.{rest}" if first in TOP else name
    number, _, inner = rest.partition(".")
    if not number.isdecimal() or int(number) >= len(blocks):
        return name
    path, block = blocks[int(number)]
    table = INVERTED if hasattr(block, "conv_pwl") else SEPARABLE
    part, _, entry = inner.partition(".")
    return f"blocks.{path}.{table[part]}.{entry}" if part in table else name
