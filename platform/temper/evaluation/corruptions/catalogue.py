"""The kinds of corruption, their severities at each image size, and ``corrupt``."""

from collections.abc import Callable

import torch
from torch import Tensor

from temper.batches import as_floats
from temper.errors import DataError, UsageError
from temper.evaluation.corruptions import blur, digital, lighting, medical, noise, weather
from temper.evaluation.corruptions.draws import Draws
from temper.evaluation.corruptions.kind import SEVERITIES, Corruption, Five, Group


def _common(apply: Callable[..., Tensor], **settings: tuple[Five, ...]) -> Corruption:
    return Corruption("common", apply, settings)


def _medical(apply: Callable[..., Tensor], **settings: tuple[Five, ...]) -> Corruption:
    return Corruption("medical", apply, settings)


# Hendrycks and Dietterich 2019, arXiv:1903.12261: the settings published with CIFAR-10-C (32 pixels),
# Tiny-ImageNet-C (64) and ImageNet-C (224). Accuracies do not equal those on the published sets: the frost is
# made up, and the blurs are not ImageMagick's and OpenCV's to the pixel (how far apart they are was not
# measured). By their settings, glass_blur and elastic_transform are not monotone in severity.
CORRUPTIONS: dict[str, Corruption] = {
    "gaussian_noise": _common(
        noise.gaussian_noise,
        std=((0.04, 0.06, 0.08, 0.09, 0.10), (0.04, 0.08, 0.12, 0.15, 0.18), (0.08, 0.12, 0.18, 0.26, 0.38)),
    ),
    "shot_noise": _common(
        noise.shot_noise, photons=((500, 250, 100, 75, 50), (250, 100, 50, 30, 15), (60, 25, 12, 5, 3))
    ),
    "impulse_noise": _common(
        noise.impulse_noise,
        share=(
            (0.01, 0.02, 0.03, 0.05, 0.07),
            (0.01, 0.02, 0.05, 0.08, 0.14),
            (0.03, 0.06, 0.09, 0.17, 0.27),
        ),
    ),
    "defocus_blur": _common(
        blur.defocus_blur,
        radius_px=((0.3, 0.4, 0.5, 1, 1.5), (0.5, 1, 1.5, 2.5, 3), (3, 4, 6, 8, 10)),
        softness_px=((0.4, 0.5, 0.6, 0.2, 0.1), (0.6, 0.1, 0.1, 0.01, 0.1), (0.1, 0.5, 0.5, 0.5, 0.5)),
    ),
    "glass_blur": _common(
        blur.glass_blur,
        sigma_px=((0.05, 0.25, 0.4, 0.25, 0.4), (0.1, 0.5, 0.6, 0.7, 0.9), (0.7, 0.9, 1, 1.1, 1.5)),
        reach_px=((1, 1, 1, 1, 1), (1, 1, 1, 2, 2), (1, 2, 2, 3, 4)),
        rounds=((1, 1, 1, 2, 2), (1, 1, 2, 1, 2), (2, 1, 3, 2, 2)),
    ),
    "motion_blur": _common(
        blur.motion_blur,
        radius_px=((6, 6, 6, 8, 9), (10, 10, 10, 10, 12), (10, 15, 15, 15, 20)),
        sigma_px=((1, 1.5, 2, 2, 2.5), (1, 1.5, 2, 2.5, 3), (3, 5, 8, 12, 15)),
    ),
    "zoom_blur": _common(
        blur.zoom_blur,
        largest=(
            (1.05, 1.10, 1.15, 1.20, 1.25),
            (1.05, 1.10, 1.15, 1.20, 1.25),
            (1.10, 1.15, 1.20, 1.24, 1.30),
        ),
        num_zooms=((6, 11, 16, 21, 26), (6, 11, 16, 21, 26), (11, 16, 11, 13, 11)),
    ),
    "snow": _common(
        weather.snow,
        mean=((0.1, 0.1, 0.15, 0.25, 0.3), (0.1, 0.1, 0.15, 0.25, 0.3), (0.1, 0.2, 0.55, 0.55, 0.55)),
        std=((0.2, 0.2, 0.3, 0.3, 0.3), (0.2, 0.2, 0.3, 0.3, 0.3), (0.3, 0.3, 0.3, 0.3, 0.3)),
        flake=((1, 1, 1.75, 2.25, 1.25), (1, 1, 1.75, 2.25, 1.25), (3, 2, 4, 4.5, 2.5)),
        threshold=((0.6, 0.5, 0.55, 0.6, 0.65), (0.6, 0.5, 0.55, 0.6, 0.65), (0.5, 0.5, 0.9, 0.85, 0.85)),
        radius_px=((8, 10, 10, 12, 14), (8, 10, 10, 12, 14), (10, 12, 12, 12, 12)),
        sigma_px=((3, 4, 4, 6, 12), (3, 4, 4, 6, 12), (4, 4, 8, 8, 12)),
        kept=((0.95, 0.9, 0.9, 0.85, 0.8), (0.8, 0.8, 0.7, 0.65, 0.6), (0.8, 0.7, 0.7, 0.65, 0.55)),
    ),
    "frost": _common(
        weather.frost,
        kept=((1, 1, 0.9, 0.85, 0.75), (1, 0.9, 0.8, 0.75, 0.7), (1, 0.8, 0.7, 0.65, 0.6)),
        ice=((0.2, 0.3, 0.4, 0.4, 0.45), (0.3, 0.4, 0.45, 0.5, 0.55), (0.4, 0.6, 0.7, 0.7, 0.75)),
    ),
    "fog": _common(
        weather.fog,
        thickness=((0.2, 0.5, 0.75, 1, 1.5), (0.4, 0.7, 1, 1.5, 2), (1.5, 2, 2.5, 2.5, 3)),
        roughness=((3, 3, 2.5, 2, 1.75), (3, 3, 2.5, 2, 1.75), (2, 2, 1.7, 1.5, 1.4)),
    ),
    "brightness": _common(
        weather.brightness,
        added=((0.05, 0.1, 0.15, 0.2, 0.3), (0.1, 0.2, 0.3, 0.4, 0.5), (0.1, 0.2, 0.3, 0.4, 0.5)),
    ),
    "contrast": _common(
        digital.contrast,
        kept=((0.75, 0.5, 0.4, 0.3, 0.15), (0.4, 0.3, 0.2, 0.1, 0.05), (0.4, 0.3, 0.2, 0.1, 0.05)),
    ),
    "elastic_transform": _common(
        digital.elastic_transform,
        jitter_px=(
            (2.56, 2.24, 1.92, 1.6, 0.96),
            (5.12, 3.84, 3.84, 1.92, 1.28),
            (24.4, 48.8, 4.88, 4.88, 4.88),
        ),
        alpha_px=((0, 1.6, 2.56, 3.2, 3.2), (0, 3.2, 6.4, 6.4, 10.24), (488, 488, 12.2, 17.1, 29.3)),
        sigma_px=((1, 6.4, 1.92, 1.28, 0.96), (1, 19.2, 5.12, 1.92, 1.92), (171, 19.5, 2.44, 2.44, 2.44)),
    ),
    "pixelate": _common(
        digital.pixelate,
        scale=((0.95, 0.9, 0.85, 0.75, 0.65), (0.9, 0.8, 0.7, 0.6, 0.5), (0.6, 0.5, 0.4, 0.3, 0.25)),
    ),
    "jpeg_compression": _common(
        digital.jpeg_compression, quality=((80, 65, 58, 50, 40), (65, 58, 50, 40, 25), (25, 18, 15, 10, 7))
    ),
}

# Gamma, contrast and the largest noise are MedMNIST-C's for chest images; the smaller noise is its range for
# pneumonia at 28 pixels. Bias field and motion are shares of the image and the same at all sizes (our choice,
# by eye on chest images).
MEDICAL: dict[str, Corruption] = {
    "gamma_up": _medical(medical.gamma, exponent=((1.1, 1.2, 1.3, 1.4, 1.6),)),
    "gamma_down": _medical(medical.gamma, exponent=((0.9, 0.8, 0.7, 0.6, 0.4),)),
    "contrast_up": _medical(medical.contrast_about_mean, factor=((1.1, 1.2, 1.3, 1.4, 1.6),)),
    "contrast_down": _medical(medical.contrast_about_mean, factor=((0.9, 0.8, 0.7, 0.6, 0.4),)),
    "bias_field": _medical(medical.bias_field, strength=((0.2, 0.35, 0.5, 0.7, 0.9),)),
    "rigid_motion": _medical(
        medical.rigid_motion,
        num_moves=((5, 6, 7, 8, 9),),
        shift=((0.02, 0.03, 0.045, 0.06, 0.08),),
        degrees=((2, 3, 4, 6, 8),),
    ),
    "rician_noise": _medical(
        noise.rician_noise,
        std=((0.03, 0.04, 0.05, 0.06, 0.08), (0.03, 0.05, 0.07, 0.1, 0.14), (0.04, 0.08, 0.12, 0.18, 0.26)),
    ),
}

# Settings of our choice, by eye on tiles and signs; strengths are shares, so the same at all sizes. Drops of
# rain are fewer and longer on larger images.
DOMAINS: dict[str, Corruption] = {
    "darkness": Corruption("lighting", lighting.darkness, {"kept": ((0.8, 0.65, 0.5, 0.4, 0.3),)}),
    "uneven_lighting": Corruption(
        "lighting", lighting.uneven_lighting, {"strength": ((0.2, 0.35, 0.5, 0.65, 0.8),)}
    ),
    "rain": Corruption(
        "weather",
        weather.rain,
        {
            "share": (
                (0.005, 0.01, 0.015, 0.02, 0.03),
                (0.0025, 0.005, 0.0075, 0.01, 0.015),
                (0.0008, 0.0015, 0.0022, 0.003, 0.0045),
            ),
            "length_px": ((4, 5, 6, 7, 8), (8, 10, 12, 14, 16), (25, 30, 36, 42, 50)),
            "opacity": ((0.4, 0.45, 0.5, 0.55, 0.6),),
            "kept": ((0.95, 0.9, 0.85, 0.8, 0.7),),
        },
    ),
}

KINDS: dict[str, Corruption] = CORRUPTIONS | MEDICAL | DOMAINS
"""Every kind by its name."""


def _set(*kinds: str) -> dict[str, Corruption]:
    return {kind: KINDS[kind] for kind in kinds}


GROUPS: dict[Group, dict[str, Corruption]] = {
    "common": CORRUPTIONS,
    "medical": MEDICAL,
    # The detector (photons, read-out), exposure, a moving or badly focused picture, and its storage.
    "xray": _set(
        "shot_noise",
        "gaussian_noise",
        "contrast_up",
        "contrast_down",
        "gamma_up",
        "gamma_down",
        "defocus_blur",
        "jpeg_compression",
    ),
    # A lamp that is too bright, too dark or on one side; a lens out of focus, a tile that moves.
    "lighting": _set("brightness", "darkness", "contrast", "uneven_lighting", "defocus_blur", "motion_blur"),
    "weather": _set("fog", "snow", "rain", "brightness", "motion_blur"),
}


def find_corruption(kind: str) -> Corruption:
    """The corruption of that name.

    Raises:
        UsageError: no such kind.
    """
    if kind not in KINDS:
        raise UsageError(f"no corruption {kind!r}. Corruptions: {', '.join(KINDS)}")
    return KINDS[kind]


@torch.no_grad()
def corrupt(kind: str, severity: int, images: Tensor, rows: Tensor, seed: int) -> Tensor:
    """uint8 images (B,3,H,W) corrupted, as uint8 (B,3,H,W) on the same device.

    ``rows`` (B,) int64 are the images' own numbers: an image's pixels depend on them, ``seed``, ``kind``,
    ``severity`` and nothing else. Values are rounded to the nearest of 8 bits.

    Raises:
        UsageError: no such kind, or a severity outside 1..5.
        DataError: images or rows of another shape or type.
    """
    corruption = find_corruption(kind)
    if severity not in SEVERITIES:
        raise UsageError(f"a corruption's severity is 1, 2, 3, 4 or 5, got {severity!r}")
    if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[1] != 3:
        raise DataError(f"expected uint8 images (B,3,H,W), got {images.dtype} {tuple(images.shape)}")
    if rows.shape != images.shape[:1]:
        raise DataError(f"expected the number of each of {len(images)} images, got rows {tuple(rows.shape)}")
    settings = corruption.settings_at(severity, min(images.shape[-2:]))
    draws = Draws(rows.to(images.device), seed, kind, severity)
    corrupted = corruption.apply(as_floats(images), draws, **settings)
    return (corrupted * 255).round().clamp(0, 255).to(torch.uint8).contiguous()
