"""ResNets for CIFAR-10, with shortcuts without weights. He et al. 2015, arXiv:1512.03385, section 4.2.

Parameters are named as in the checkpoints of Y. Idelbayev (akamaster/pytorch_resnet_cifar10), so that these
load. The networks of ``small_resnet`` differ in their shortcuts, which are convolutions.
"""

import torch.nn.functional as F
from torch import Tensor, nn

from temper.models.backbone import Groups, NoClassifier, groups_by_cuts
from temper.models.in_place import average_globally, relu_


class CifarBlock(nn.Module):
    """Two 3x3 convolutions, and a shortcut that is subsampled and padded with channels of zeros (type A)."""

    def __init__(self, in_width: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_width, width, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.stride = stride
        self.num_padded = (width - in_width) // 2
        """Channels of zeros before, and as many after."""

    def forward(self, features: Tensor) -> Tensor:
        out = relu_(self.bn1(self.conv1(features)))
        out = self.bn2(self.conv2(out))
        shortcut = features
        if self.stride > 1:
            shortcut = F.pad(
                features[:, :, :: self.stride, :: self.stride],
                (0, 0, 0, 0, self.num_padded, self.num_padded),
            )
        out += shortcut
        return relu_(out)


class CifarResNet(nn.Module):
    """Images (B,3,H,W), already normalised, to features (B,64). The stem keeps the resolution."""

    def __init__(self, depth: int) -> None:
        super().__init__()
        num_blocks, rest = divmod(depth - 2, 6)
        assert rest == 0, "three stages of blocks of two convolutions, and two more layers"
        self.conv1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.layer1 = _stage(16, 16, num_blocks, stride=1)
        self.layer2 = _stage(16, 32, num_blocks, stride=2)
        self.layer3 = _stage(32, 64, num_blocks, stride=2)
        self.linear = NoClassifier()
        self.num_features = 64
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight)

    def forward(self, images: Tensor) -> Tensor:
        out = relu_(self.bn1(self.conv1(images)))
        return average_globally(self.layer3(self.layer2(self.layer1(out))))

    def groups(self) -> Groups:
        """``stem``, and a layer for each resolution."""
        return groups_by_cuts(self, ["layer1", "layer2", "layer3"])


def _stage(in_width: int, width: int, num_blocks: int, stride: int) -> nn.Sequential:
    first = CifarBlock(in_width, width, stride)
    return nn.Sequential(first, *(CifarBlock(width, width, 1) for _ in range(num_blocks - 1)))


def cifar_resnet20() -> CifarResNet:
    """0.27 M parameters; 91.7 % on CIFAR-10."""
    return CifarResNet(20)


def cifar_resnet32() -> CifarResNet:
    """0.46 M parameters; 92.6 % on CIFAR-10."""
    return CifarResNet(32)


def cifar_resnet44() -> CifarResNet:
    """0.66 M parameters; 93.1 % on CIFAR-10."""
    return CifarResNet(44)


def cifar_resnet56() -> CifarResNet:
    """0.85 M parameters; 93.4 % on CIFAR-10."""
    return CifarResNet(56)
