"""Corruptions of ImageNet-C that move pixels: motion and glass blur, elastic transform, zoom.

Images float64[H,W,C] in [0, 1], after the formulas of the authors' code and of ImageMagick 6, which
it calls for motion blur.
"""

import math

import numpy as np

Rng = np.random.Generator


def motion_blur(image: np.ndarray, constant: tuple[float, float], rng: Rng) -> np.ndarray:
    """Along a line of radius and deviation `constant`, at -45 to 45 degrees."""
    return blurred_along(image, *constant, angle=float(rng.uniform(-45, 45)))


def blurred_along(image: np.ndarray, radius: float, deviation: float, angle: float) -> np.ndarray:
    """ImageMagick's MotionBlurImage: a mean of copies moved along one side of a line.

    Copy i of 0 to 2 ceil(radius) weighs exp(-i² / (2 deviation²)) and is moved by
    ceil(i · direction - 1/2) pixels; what is beyond the edge is as the edge. angle: in degrees.
    """
    steps = np.arange(2 * math.ceil(radius) + 1)
    weights = np.exp(-(steps**2) / (2 * deviation**2))
    turned = math.radians(angle)
    down, right = (
        np.ceil(steps * direction - 0.5).astype(int)
        for direction in (math.sin(turned), math.cos(turned))
    )
    height, width = image.shape[:2]
    found = np.zeros_like(image)
    for weight, dy, dx in zip(weights / weights.sum(), down, right, strict=True):
        rows = (np.arange(height) + dy).clip(0, height - 1)
        columns = (np.arange(width) + dx).clip(0, width - 1)
        found += weight * image[rows][:, columns]
    return found


def glass_blur(image: np.ndarray, constant: tuple[float, int, int], rng: Rng) -> np.ndarray:
    """Blurred, pixels replaced by others up to `reach` away, blurred again.

    constant: deviation, reach, and how often. Their code means to swap two pixels, but copies one
    over the other: so do the published images, and so does this.
    """
    deviation, reach, passes = constant
    image = np.floor(blurred(image, deviation) * 255) / 255
    height, width = image.shape[:2]
    rows, columns = np.arange(height - reach, reach, -1), np.arange(width - reach, reach, -1)
    order = np.arange(height * width).reshape(height, width)
    places = order[rows][:, columns].ravel().tolist()
    source = order.ravel().tolist()
    for _ in range(passes):
        right, down = rng.integers(-reach, reach, size=(2, len(rows), len(columns)))
        others = order[rows[:, None] + down, columns[None, :] + right].ravel().tolist()
        for place, other in zip(places, others, strict=True):  # a copy may be copied again
            source[place] = source[other]
    shuffled = image.reshape(height * width, -1)[source].reshape(image.shape)
    return blurred(shuffled, deviation)


def blurred(image: np.ndarray, deviation: float) -> np.ndarray:
    """By a Gaussian of that deviation in pixels."""
    from scipy.ndimage import gaussian_filter

    return np.asarray(gaussian_filter(image, (deviation, deviation, 0), mode="nearest"))


def elastic_transform(
    image: np.ndarray, constant: tuple[float, float, float], rng: Rng
) -> np.ndarray:
    """A random affine map, then each pixel displaced by smooth noise.

    constant: height and deviation of the displacement (Simard et al. 2003), and by how many pixels
    the affine map moves each of three points.
    """
    from scipy.ndimage import gaussian_filter, map_coordinates

    height, deviation, most = constant
    image = moved_affinely(image, rng.uniform(-most, most, (3, 2)))
    across, down = (
        height
        * gaussian_filter(
            rng.uniform(-1, 1, image.shape[:2]), deviation, mode="reflect", truncate=3
        )
        for _ in range(2)
    )
    rows, columns = np.indices(image.shape[:2])
    places = np.stack([rows + down, columns + across])
    channels = [
        map_coordinates(channel, places, order=1, mode="reflect")
        for channel in np.moveaxis(image, -1, 0)
    ]
    return np.stack(channels, axis=-1)


def moved_affinely(image: np.ndarray, moves: np.ndarray) -> np.ndarray:
    """By the affine map that moves three corners of the central square by float[3,2], x first."""
    from scipy.ndimage import affine_transform

    centre, arm = np.array(image.shape[:2]) // 2, min(image.shape[:2]) // 3
    corners = centre + arm * np.array([[1, 1], [1, -1], [-1, -1]], float)
    # rows of (x, y, 1) times `back` give where each pixel comes from
    back = np.linalg.solve(np.c_[corners + moves, np.ones(3)], corners)
    swapped = back[:2].T[::-1, ::-1]  # of (row, column)
    channels = [
        affine_transform(channel, swapped, offset=back[2, ::-1], order=1, mode="mirror")
        for channel in np.moveaxis(image, -1, 0)
    ]
    return np.stack(channels, axis=-1)


def zoomed(image: np.ndarray, factor: float) -> np.ndarray:
    """Its centre enlarged by `factor`, of the same size."""
    from scipy.ndimage import zoom

    side = image.shape[0]
    inner = int(np.ceil(side / factor))
    top = (side - inner) // 2
    larger = zoom(image[top : top + inner, top : top + inner], (factor, factor, 1), order=1)
    trim = (larger.shape[0] - side) // 2
    return np.asarray(larger[trim : trim + side, trim : trim + side])
