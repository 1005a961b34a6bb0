"""Wide ResNets for images of 8 to 64 px. Zagoruyko & Komodakis 2016, arXiv:1605.07146.

Parameters are named as in the checkpoints of TRADES (Zhang et al. 2019, arXiv:1901.08573) and of most Wide
ResNets of RobustBench (Croce et al. 2021, arXiv:2010.09670), so that these load. Those that derive from
Gowal et al. 2020 (arXiv:2010.03593) have other names and another activation, and do not.
"""

from torch import Tensor, nn

from temper.models.backbone import Groups, NoClassifier, groups_by_cuts
from temper.models.in_place import average_globally, relu_


class WideBlock(nn.Module):
    """Normalisation and activation before each of two 3x3 convolutions, and a shortcut."""

    def __init__(self, in_width: int, width: int, stride: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(in_width)
        self.conv1 = nn.Conv2d(in_width, width, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.convShortcut: nn.Module | None = None  # the checkpoints' name
        if in_width != width:
            self.convShortcut = nn.Conv2d(in_width, width, 1, stride, bias=False)

    def forward(self, features: Tensor) -> Tensor:
        out = relu_(self.bn1(features))
        shortcut = features if self.convShortcut is None else self.convShortcut(out)
        result: Tensor = self.conv2(relu_(self.bn2(self.conv1(out)))) + shortcut
        return result


class WideStage(nn.Module):
    """Blocks of one width; the first of them changes the resolution."""

    def __init__(self, in_width: int, width: int, depth: int, stride: int) -> None:
        super().__init__()
        first = WideBlock(in_width, width, stride)
        self.layer = nn.Sequential(first, *(WideBlock(width, width, 1) for _ in range(depth - 1)))

    def forward(self, features: Tensor) -> Tensor:
        out: Tensor = self.layer(features)
        return out


class WideResNet(nn.Module):
    """Images (B,3,H,W), already normalised, to features (B,D). The stem keeps the resolution."""

    def __init__(self, depth: int, factor: int) -> None:
        super().__init__()
        num_blocks, rest = divmod(depth - 4, 6)
        assert rest == 0, "three stages of blocks of two convolutions, and four more layers"
        widths = [16, 16 * factor, 32 * factor, 64 * factor]
        self.conv1 = nn.Conv2d(3, widths[0], 3, 1, 1, bias=False)
        self.block1 = WideStage(widths[0], widths[1], num_blocks, stride=1)
        self.block2 = WideStage(widths[1], widths[2], num_blocks, stride=2)
        self.block3 = WideStage(widths[2], widths[3], num_blocks, stride=2)
        self.bn1 = nn.BatchNorm2d(widths[3])
        self.fc = NoClassifier()
        self.num_features = widths[3]
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, images: Tensor) -> Tensor:
        out = self.block3(self.block2(self.block1(self.conv1(images))))
        return average_globally(relu_(self.bn1(out)))

    def groups(self) -> Groups:
        """``stem``, and a block for each resolution; the last BatchNorm belongs to the last."""
        return groups_by_cuts(self, ["block1", "block2", "block3"])


def wide_resnet16_4() -> WideResNet:
    """2.7 M parameters."""
    return WideResNet(16, 4)


def wide_resnet28_10() -> WideResNet:
    """36 M parameters; most entries of RobustBench for CIFAR."""
    return WideResNet(28, 10)


def wide_resnet34_10() -> WideResNet:
    """46 M parameters; the network of TRADES, MART and AWP."""
    return WideResNet(34, 10)


def wide_resnet34_20() -> WideResNet:
    """185 M parameters."""
    return WideResNet(34, 20)


def wide_resnet70_16() -> WideResNet:
    """267 M parameters."""
    return WideResNet(70, 16)
