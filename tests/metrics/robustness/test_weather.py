"""ImageNet-C's motion and glass blur, elastic transform, snow and fog, against the formulas."""

import math

import numpy as np
import pytest

from metrics.robustness.corruptions import CORRUPTIONS, corrupt
from metrics.robustness.displacement import (
    blurred,
    blurred_along,
    elastic_transform,
    glass_blur,
    moved_affinely,
    zoomed,
)
from metrics.robustness.weather import fog, plasma, snow

NEW = ("glass_blur", "motion_blur", "snow", "fog", "elastic_transform")


def an_image(side: int = 16, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).random((side, side, 3))


@pytest.mark.parametrize("angle", [-45, -10.5, 0, 30])
def test_motion_blur_is_imagemagicks_pixel_by_pixel(angle: float) -> None:
    """MotionBlurImage: its kernel, its offsets, and the nearest edge pixel beyond the edge."""
    image, radius, sigma = an_image(12), 3, 2.0
    kernel = [
        math.exp(-(i * i) / (2 * sigma**2)) / (math.sqrt(2 * math.pi) * sigma)
        for i in range(2 * radius + 1)
    ]
    expected = np.zeros_like(image)
    for y in range(12):
        for x in range(12):
            for i, weight in enumerate(kernel):
                dy = math.ceil(i * math.sin(math.radians(angle)) - 0.5)
                dx = math.ceil(i * math.cos(math.radians(angle)) - 0.5)
                pixel = image[min(max(y + dy, 0), 11), min(max(x + dx, 0), 11)]
                expected[y, x] += weight / sum(kernel) * pixel
    assert np.abs(blurred_along(image, radius, sigma, angle) - expected).max() < 1e-12


def test_glass_blur_copies_pixels_as_their_loop_does() -> None:
    image, deviation, reach, passes = an_image(), 0.7, 2, 3
    rng = np.random.default_rng(5)
    moved = np.floor(blurred(image, deviation) * 255) / 255
    for _ in range(passes):
        right, down = rng.integers(-reach, reach, size=(2, 12, 12)).tolist()
        for i, y in enumerate(range(16 - reach, reach, -1)):
            for j, x in enumerate(range(16 - reach, reach, -1)):
                there = y + down[i][j], x + right[i][j]
                # on views, as theirs: the second assignment reads what the first has written
                moved[y, x], moved[there] = moved[there], moved[y, x]
    found = glass_blur(image, (deviation, reach, passes), np.random.default_rng(5))
    assert np.abs(found - blurred(moved, deviation)).max() < 1e-12


def test_the_affine_part_moves_three_corners_where_it_says() -> None:
    """A spot at each corner of the central square is found where the corner was moved to."""
    rows, columns = np.indices((48, 48))
    moves = np.array([[2.0, -3.0], [-1.5, 2.5], [3.0, 1.0]])
    for (x, y), move in zip([(40, 40), (40, 8), (8, 8)], moves, strict=True):
        spot = np.exp(-((rows - y) ** 2 + (columns - x) ** 2) / 4)[:, :, None]
        found = moved_affinely(spot, moves)[:, :, 0]
        found *= (rows - y - move[1]) ** 2 + (columns - x - move[0]) ** 2 < 30  # no mirror image
        centre = [(found * axis).sum() / found.sum() for axis in (columns, rows)]
        assert np.abs(np.array(centre) - np.add([x, y], move)).max() < 0.2


def test_displacement_is_smooth_noise_read_bilinearly() -> None:
    from scipy.ndimage import gaussian_filter

    image, rng = an_image(), np.random.default_rng(3)
    found = elastic_transform(image, (2.0, 1.5, 0.0), np.random.default_rng(3))
    rng.uniform(size=(3, 2))
    across, down = (
        2.0 * gaussian_filter(rng.uniform(-1, 1, (16, 16)), 1.5, mode="reflect", truncate=3)
        for _ in range(2)
    )
    for y, x in [(8, 8), (5, 9), (10, 4)]:
        v, u = y + down[y, x], x + across[y, x]
        top, left = math.floor(v), math.floor(u)
        expected = sum(
            abs(1 - i - (v - top)) * abs(1 - j - (u - left)) * image[top + i, left + j]
            for i in (0, 1)
            for j in (0, 1)
        )
        assert np.abs(found[y, x] - expected).max() < 1e-9


def test_plasma_is_diamond_square_point_by_point() -> None:
    side, decay = 8, 1.7
    rng, heights, step, wibble = np.random.default_rng(2), np.zeros((8, 8)), 8, 100.0

    def at(y: int, x: int) -> float:
        return heights[y % side, x % side]

    while step >= 2:
        half = step // 2
        for first, second, near in (
            (half, half, ((-1, -1), (-1, 1), (1, -1), (1, 1))),
            (0, half, ((-1, 0), (1, 0), (0, -1), (0, 1))),
            (half, 0, ((-1, 0), (1, 0), (0, -1), (0, 1))),
        ):
            noise = wibble * rng.uniform(-wibble, wibble, (side // step, side // step))
            for i in range(side // step):
                for j in range(side // step):
                    y, x = i * step + first, j * step + second
                    mean = sum(at(y + half * a, x + half * b) for a, b in near) / 4
                    heights[y, x] = mean + noise[i, j]
        step, wibble = half, wibble / decay
    expected = (heights - heights.min()) / np.ptp(heights)
    assert np.abs(plasma(side, decay, np.random.default_rng(2)) - expected).max() < 1e-12


def test_fog_is_added_and_scaled_back() -> None:
    image = an_image(12) * 0.8
    layer = plasma(16, 2.0, np.random.default_rng(4))[:12, :12, None]
    top = image.max()
    expected = (image + 1.5 * layer) * top / (top + 1.5)
    assert np.allclose(fog(image, (1.5, 2.0), np.random.default_rng(4)), expected, atol=1e-12)


def test_snow_is_its_formula() -> None:
    image, rng = an_image(), np.random.default_rng(6)
    flakes = zoomed(rng.normal(0.2, 0.3, (16, 16))[:, :, None], 2)
    flakes[flakes < 0.5] = 0
    flakes = (np.clip(flakes, 0, 1) * 255).astype(np.uint8) / 255
    flakes = blurred_along(flakes, 12, 4, rng.uniform(-135, -45))
    grey = image[..., 0] * 0.299 + image[..., 1] * 0.587 + image[..., 2] * 0.114
    white = np.maximum(image, grey[:, :, None] * 1.5 + 0.5)
    expected = 0.7 * image + 0.3 * white + flakes + flakes[::-1, ::-1]
    found = snow(image, (0.2, 0.3, 2, 0.5, 12, 4, 0.7), np.random.default_rng(6))
    assert np.allclose(found, expected, atol=1e-12)


@pytest.mark.parametrize("name", NEW)
def test_all_sizes_and_severities_give_an_image(name: str) -> None:
    for side in (16, 33):
        image = (an_image(side) * 255).astype(np.uint8)
        for severity in (1, 3, 5):
            found = corrupt(image, name, severity, key=7)
            assert found.shape == image.shape
            assert found.dtype == np.uint8
            assert (found == corrupt(image, name, severity, key=7)).all()
            assert (found != image).any()


def test_fourteen_of_the_fifteen_are_there() -> None:
    benchmark = {"gaussian_noise", "shot_noise", "impulse_noise", "defocus_blur", "zoom_blur"}
    benchmark |= {"brightness", "contrast", "pixelate", "jpeg_compression", *NEW}
    assert benchmark <= CORRUPTIONS.keys()
    assert "frost" not in CORRUPTIONS
    assert CORRUPTIONS["snow"][1][4] == (0.55, 0.3, 2.5, 0.85, 12, 12, 0.55)
