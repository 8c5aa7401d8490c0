"""Weather of ImageNet-C: snow and fog, after the formulas of the authors' code.

Images float64[H,W,3] in [0, 1].
"""

import numpy as np

from metrics.robustness.displacement import blurred_along, zoomed

Rng = np.random.Generator
GREY = np.array([0.299, 0.587, 0.114])
FIRST_WIBBLE = 100.0


def snow(
    image: np.ndarray, constant: tuple[float, float, float, float, float, float, float], rng: Rng
) -> np.ndarray:
    """Flakes that fall aslant, and a whitened image.

    constant: mean and deviation of the noise that flakes are made of, how much it is zoomed, the
    least value that is a flake, radius and deviation of its motion blur, the image's share.
    """
    mean, deviation, zoom, least, radius, spread, share = constant
    layer = zoomed(rng.normal(mean, deviation, image.shape[:2])[:, :, None], zoom)
    layer = np.floor(np.where(layer < least, 0, layer).clip(0, 1) * 255) / 255
    layer = blurred_along(layer, radius, spread, angle=float(rng.uniform(-135, -45)))
    white = np.maximum(image, (image @ GREY)[:, :, None] * 1.5 + 0.5)
    return np.asarray(share * image + (1 - share) * white + layer + np.rot90(layer, k=2))


def fog(image: np.ndarray, constant: tuple[float, float], rng: Rng) -> np.ndarray:
    """A plasma fractal added, then scaled to the brightest value that the image had.

    constant: how much of it, and by what its noise falls from scale to scale.
    """
    amount, decay = constant
    side = 1 << (max(image.shape[:2]) - 1).bit_length()
    height, width = image.shape[:2]
    brightest = image.max()
    foggy = image + amount * plasma(side, decay, rng)[:height, :width, None]
    return np.asarray(foggy * brightest / (brightest + amount))


def plasma(side: int, decay: float, rng: Rng) -> np.ndarray:
    """float64[side,side] from 0 to 1, side a power of two: a height map that wraps around.

    Diamond-square (Fournier et al. 1982). The middle of each square, then that of each edge, is the
    mean of its four neighbours plus noise of ± wibble²; wibble falls by `decay` from scale to
    scale.
    """
    heights = np.zeros((side, side))
    step, wibble = side, FIRST_WIBBLE

    def between(total: np.ndarray) -> np.ndarray:
        return np.asarray(total / 4 + wibble * rng.uniform(-wibble, wibble, total.shape))

    while step >= 2:
        half = step // 2
        corners = heights[::step, ::step]
        pairs = corners + np.roll(corners, -1, axis=0)
        heights[half::step, half::step] = between(pairs + np.roll(pairs, -1, axis=1))
        middles = heights[half::step, half::step]
        above = middles + np.roll(middles, 1, axis=0)
        heights[::step, half::step] = between(above + corners + np.roll(corners, -1, axis=1))
        beside = middles + np.roll(middles, 1, axis=1)
        heights[half::step, ::step] = between(beside + corners + np.roll(corners, -1, axis=0))
        step, wibble = half, wibble / decay
    heights -= heights.min()
    return np.asarray(heights / heights.max())
