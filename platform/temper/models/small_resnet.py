"""ResNets for images of 8 to 64 px.

Parameter names are stable: a checkpoint of one version loads in the next.
"""

from torch import Tensor, nn

from temper.models.backbone import Groups, NoClassifier
from temper.models.in_place import average_globally, relu_


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut. He et al. 2015, arXiv:1512.03385."""

    def __init__(self, in_width: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_width, width, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.shortcut = nn.Sequential()
        if stride != 1 or in_width != width:
            self.shortcut = nn.Sequential(
                nn.Conv2d(in_width, width, 1, stride, bias=False), nn.BatchNorm2d(width)
            )

    def forward(self, features: Tensor) -> Tensor:
        out = relu_(self.bn1(self.conv1(features)))
        out = self.bn2(self.conv2(out))
        out += self.shortcut(features)
        return relu_(out)


class PreActBlock(nn.Module):
    """Normalisation and activation before each convolution. He et al. 2016, arXiv:1603.05027."""

    def __init__(self, in_width: int, width: int, stride: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(in_width)
        self.conv1 = nn.Conv2d(in_width, width, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.shortcut: nn.Module | None = None
        if stride != 1 or in_width != width:
            self.shortcut = nn.Conv2d(in_width, width, 1, stride, bias=False)

    def forward(self, features: Tensor) -> Tensor:
        out = relu_(self.bn1(features))
        shortcut = features if self.shortcut is None else self.shortcut(out)
        out = self.conv1(out)
        result: Tensor = self.conv2(relu_(self.bn2(out))) + shortcut
        return result


class SmallResNet(nn.Module):
    """Images (B,3,H,W), already normalised, to features (B,D). The stem keeps the resolution."""

    def __init__(self, block: type[BasicBlock] | type[PreActBlock], widths: list[int], depth: int) -> None:
        super().__init__()
        self.is_preact = block is PreActBlock
        self.conv1 = nn.Conv2d(3, widths[0], 3, 1, 1, bias=False)
        self.bn1 = nn.Identity() if self.is_preact else nn.BatchNorm2d(widths[0])
        in_width = widths[0]
        for index, width in enumerate(widths):
            blocks: list[nn.Module] = []
            for position in range(depth):
                blocks.append(block(in_width, width, stride=2 if index > 0 and position == 0 else 1))
                in_width = width
            self.add_module(f"layer{index + 1}", nn.Sequential(*blocks))
        self.bn = nn.BatchNorm2d(in_width) if self.is_preact else nn.Identity()
        self.linear = NoClassifier()
        self.num_features = in_width
        self.num_layers = len(widths)

    def forward(self, images: Tensor) -> Tensor:
        out = self.bn1(self.conv1(images))
        if not self.is_preact:
            out = relu_(out)
        for index in range(self.num_layers):
            out = self.get_submodule(f"layer{index + 1}")(out)
        if self.is_preact:
            out = relu_(self.bn(out))
        return average_globally(out)

    def groups(self) -> Groups:
        """Group name -> modules, from the input to the features."""
        groups: Groups = {"stem": [self.conv1, self.bn1]}
        for index in range(self.num_layers):
            groups[f"layer{index + 1}"] = [self.get_submodule(f"layer{index + 1}")]
        groups[f"layer{self.num_layers}"].append(self.bn)
        return groups


def resnet8() -> SmallResNet:
    """0.08 M parameters; one block per resolution."""
    return SmallResNet(BasicBlock, [16, 32, 64], depth=1)


def resnet20() -> SmallResNet:
    """0.27 M parameters; the CIFAR ResNet-20 of He et al. 2015."""
    return SmallResNet(BasicBlock, [16, 32, 64], depth=3)


def preact_resnet18() -> SmallResNet:
    """11.2 M parameters; the network of most adversarial-training papers at 32 px."""
    return SmallResNet(PreActBlock, [64, 128, 256, 512], depth=2)
