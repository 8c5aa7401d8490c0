"""Corruptions of ImageNet-C (Hendrycks & Dietterich 2019), with the constants of their code.

Each takes an image as float64[H,W,3] in [0, 1], its constant and a generator of random numbers, and
gives one of the same shape. The constants were chosen for images of 224 px. Frost, which needs
photographs that come with their code alone, is in `frost.py`.
"""

import zlib
from collections.abc import Mapping
from io import BytesIO

import numpy as np
from PIL import Image

from metrics.robustness.corruption import Corruption
from metrics.robustness.displacement import (
    blurred,
    elastic_transform,
    glass_blur,
    motion_blur,
    zoomed,
)
from metrics.robustness.weather import fog, snow
from release.errors import UserError, unknown_name

SEVERITIES = (1, 2, 3, 4, 5)
Rng = np.random.Generator


def gaussian_noise(image: np.ndarray, scale: float, rng: Rng) -> np.ndarray:
    """x + N(0, scale²)."""
    return image + rng.normal(size=image.shape, scale=scale)


def shot_noise(image: np.ndarray, photons: float, rng: Rng) -> np.ndarray:
    """Poisson(x · photons) / photons."""
    return np.asarray(rng.poisson(image * photons) / photons)


def impulse_noise(image: np.ndarray, amount: float, rng: Rng) -> np.ndarray:
    """Salt or pepper, each with probability amount / 2, channel by channel."""
    hit, salt = rng.random(image.shape) <= amount, rng.random(image.shape) <= 0.5
    return np.where(hit, salt, image)


def defocus_blur(image: np.ndarray, constant: tuple[float, float], _: Rng) -> np.ndarray:
    """Convolved with a disk of that radius, whose edge is blurred by that deviation."""
    from scipy.signal import fftconvolve

    kernel = disk(*constant)[:, :, None]
    half = len(kernel) // 2
    padded = np.pad(image, ((half, half), (half, half), (0, 0)), mode="reflect")
    return np.asarray(fftconvolve(padded, kernel, mode="valid", axes=(0, 1)))


def disk(radius: float, alias_blur: float) -> np.ndarray:
    """float64[K,K] of sum 1."""
    from scipy.ndimage import correlate1d

    reach, width = (8, 1) if radius <= 8 else (int(radius), 2)
    line = np.arange(-reach, reach + 1)
    kernel = (line**2 + line[:, None] ** 2 <= radius**2).astype(float)
    taps = np.exp(-(np.arange(-width, width + 1) ** 2) / (2 * alias_blur**2))
    for axis in (0, 1):
        kernel = correlate1d(kernel, taps / taps.sum(), axis=axis, mode="mirror")
    return np.asarray(kernel / kernel.sum())


def gaussian_blur(image: np.ndarray, deviation: float, _: Rng) -> np.ndarray:
    """Convolved with a Gaussian."""
    return blurred(image, deviation)


def zoom_blur(image: np.ndarray, factors: tuple[float, ...], _: Rng) -> np.ndarray:
    """Mean of the image and of it zoomed by each factor."""
    return (image + sum(zoomed(image, factor) for factor in factors)) / (len(factors) + 1)


def contrast(image: np.ndarray, share: float, _: Rng) -> np.ndarray:
    """(x - mean of the channel) · share + that mean."""
    mean = image.mean(axis=(0, 1), keepdims=True)
    return np.asarray((image - mean) * share + mean)


def brightness(image: np.ndarray, added: float, _: Rng) -> np.ndarray:
    """The value of HSV raised."""
    from matplotlib.colors import hsv_to_rgb, rgb_to_hsv

    hsv = rgb_to_hsv(image)
    hsv[..., 2] = np.clip(hsv[..., 2] + added, 0, 1)
    return np.asarray(hsv_to_rgb(hsv))


def jpeg_compression(image: np.ndarray, quality: int, _: Rng) -> np.ndarray:
    """Written as JPEG and read."""
    sink = BytesIO()
    Image.fromarray(_bytes(image)).save(sink, "JPEG", quality=quality)
    return np.asarray(Image.open(sink), dtype=float) / 255


def pixelate(image: np.ndarray, share: float, _: Rng) -> np.ndarray:
    """Shrunk to that share of its side and enlarged, by box filters."""
    height, width = image.shape[:2]
    small = Image.fromarray(_bytes(image)).resize(
        (max(1, int(width * share)), max(1, int(height * share))), Image.Resampling.BOX
    )
    return np.asarray(small.resize((width, height), Image.Resampling.BOX), dtype=float) / 255


def _zooms(end: float, step: float) -> tuple[float, ...]:
    return tuple(np.arange(1, end, step).tolist())


FROST, ALL = "frost", "all"
CORRUPTIONS = {
    "gaussian_noise": Corruption(gaussian_noise, (0.08, 0.12, 0.18, 0.26, 0.38)),
    "shot_noise": Corruption(shot_noise, (60, 25, 12, 5, 3)),
    "impulse_noise": Corruption(impulse_noise, (0.03, 0.06, 0.09, 0.17, 0.27)),
    "defocus_blur": Corruption(defocus_blur, ((3, 0.1), (4, 0.5), (6, 0.5), (8, 0.5), (10, 0.5))),
    "gaussian_blur": Corruption(gaussian_blur, (1, 2, 3, 4, 6)),
    "zoom_blur": Corruption(
        zoom_blur,
        (
            _zooms(1.11, 0.01),
            _zooms(1.16, 0.01),
            _zooms(1.21, 0.02),
            _zooms(1.26, 0.02),
            _zooms(1.31, 0.03),
        ),
    ),
    "glass_blur": Corruption(
        glass_blur,
        ((0.7, 1, 2), (0.9, 2, 1), (1, 2, 3), (1.1, 3, 2), (1.5, 4, 2)),
    ),
    "motion_blur": Corruption(motion_blur, ((10, 3), (15, 5), (15, 8), (15, 12), (20, 15))),
    "snow": Corruption(
        snow,
        (
            (0.1, 0.3, 3, 0.5, 10, 4, 0.8),
            (0.2, 0.3, 2, 0.5, 12, 4, 0.7),
            (0.55, 0.3, 4, 0.9, 12, 8, 0.7),
            (0.55, 0.3, 4.5, 0.85, 12, 8, 0.65),
            (0.55, 0.3, 2.5, 0.85, 12, 12, 0.55),
        ),
    ),
    "fog": Corruption(fog, ((1.5, 2), (2.0, 2), (2.5, 1.7), (2.5, 1.5), (3.0, 1.4))),
    "elastic_transform": Corruption(
        elastic_transform,
        (  # 244 as in their code
            (244 * 2, 244 * 0.7, 244 * 0.1),
            (244 * 2, 244 * 0.08, 244 * 0.2),
            (244 * 0.05, 244 * 0.01, 244 * 0.02),
            (244 * 0.07, 244 * 0.01, 244 * 0.02),
            (244 * 0.12, 244 * 0.01, 244 * 0.02),
        ),
    ),
    "contrast": Corruption(contrast, (0.4, 0.3, 0.2, 0.1, 0.05)),
    "brightness": Corruption(brightness, (0.1, 0.2, 0.3, 0.4, 0.5)),
    "jpeg_compression": Corruption(jpeg_compression, (25, 18, 15, 10, 7)),
    "pixelate": Corruption(pixelate, (0.6, 0.5, 0.4, 0.3, 0.25)),
}


def corrupt(
    image: np.ndarray,
    name: str,
    severity: int,
    key: int,
    known: Mapping[str, Corruption] = CORRUPTIONS,
) -> np.ndarray:
    """uint8[H,W,3], rounded down as theirs. key: the image's, which decides all randomness."""
    corruption = known[name]
    rng = np.random.default_rng([key, zlib.crc32(name.encode()), severity])
    return _bytes(corruption.function(image / 255, corruption.constants[severity - 1], rng))


def parse_corruptions(names: str, known: Mapping[str, Corruption] = CORRUPTIONS) -> tuple[str, ...]:
    """Of a comma-separated list, "all", or "" for none; UserError for an unknown one."""
    wanted = [name.strip() for name in names.split(",") if name.strip()]
    if wanted == [ALL]:
        return tuple(known)
    for name in wanted:
        if name == FROST and name not in known:
            raise UserError("corruption 'frost' needs --frost-textures, a folder of photographs")
        if name not in known:
            raise unknown_name("corruption", name, [*CORRUPTIONS, FROST, ALL])
    return tuple(dict.fromkeys(wanted))


def _bytes(image: np.ndarray) -> np.ndarray:
    # a value that was whole before it was divided by 255 stays so
    return np.asarray((np.clip(image, 0, 1) * 255 + 1e-6).astype(np.uint8))
