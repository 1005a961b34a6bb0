"""A small ResNet as its user would write it, with torch's own layers."""

import torch
from torch import Tensor, nn


class PlainBlock(nn.Module):
    """Two convolutions and a shortcut; names as in ``temper.models.small_resnet``."""

    def __init__(self, in_width: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_width, width, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.shortcut = nn.Sequential()
        if stride != 1 or in_width != width:
            self.shortcut = nn.Sequential(
                nn.Conv2d(in_width, width, 1, stride, bias=False), nn.BatchNorm2d(width)
            )

    def forward(self, features: Tensor) -> Tensor:
        out: Tensor = self.relu(self.bn1(self.conv1(features)))
        out = self.bn2(self.conv2(out))
        out += self.shortcut(features)
        answered: Tensor = self.relu(out)
        return answered


class PlainResNet(nn.Module):
    """Images (B,3,H,W), already normalised, to features (B,64): ``depth`` blocks of each of three widths."""

    def __init__(self, depth: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.relu = nn.ReLU(inplace=True)
        for index, (in_width, width) in enumerate(((16, 16), (16, 32), (32, 64))):
            first = PlainBlock(in_width, width, 1 if index == 0 else 2)
            rest = (PlainBlock(width, width, 1) for _ in range(depth - 1))
            self.add_module(f"layer{index + 1}", nn.Sequential(first, *rest))
        self.pool = nn.AdaptiveAvgPool2d(1)

    def forward(self, images: Tensor) -> Tensor:
        out = self.relu(self.bn1(self.conv1(images)))
        for index in (1, 2, 3):
            out = self.get_submodule(f"layer{index}")(out)
        return torch.flatten(self.pool(out), 1)


DEPTHS = {"resnet8": 1, "resnet20": 3}


def plain_backbone(name: str, own: nn.Module) -> nn.Module:
    """A network with the weights of ``own``, the backbone ``name`` of temper; torchvision's stay."""
    if name not in DEPTHS:
        return own
    plain = PlainResNet(DEPTHS[name])
    plain.load_state_dict(own.state_dict())
    return plain.to(next(own.parameters()).dtype)
