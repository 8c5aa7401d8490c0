"""Corruptions equal the published formulas at every level; ReaL labels; effective robustness."""

import colorsys
import io
import json

import numpy as np
import pytest
from PIL import Image
from scipy.special import expit, logit
from scipy.stats import linregress

from metrics.robustness.corruptions import CORRUPTIONS, SEVERITIES, corrupt, disk, parse_corruptions
from metrics.robustness.effective import effective_robustness
from metrics.robustness.names import CORRUPTION_NAMES
from metrics.robustness.real_labels import read_real_labels, real_accuracy
from release.errors import UserError

# As make_imagenet_c.py of github.com/hendrycks/robustness states them.
PUBLISHED = {
    "gaussian_noise": [0.08, 0.12, 0.18, 0.26, 0.38],
    "shot_noise": [60, 25, 12, 5, 3],
    "impulse_noise": [0.03, 0.06, 0.09, 0.17, 0.27],
    "defocus_blur": [(3, 0.1), (4, 0.5), (6, 0.5), (8, 0.5), (10, 0.5)],
    "gaussian_blur": [1, 2, 3, 4, 6],
    "contrast": [0.4, 0.3, 0.2, 0.1, 0.05],
    "brightness": [0.1, 0.2, 0.3, 0.4, 0.5],
    "jpeg_compression": [25, 18, 15, 10, 7],
    "pixelate": [0.6, 0.5, 0.4, 0.3, 0.25],
}
EACH = pytest.mark.parametrize("severity", SEVERITIES)


def picture(side: int = 64) -> np.ndarray:
    """Smooth colours that reach neither end."""
    rng = np.random.default_rng(0)
    small = Image.fromarray(rng.integers(60, 190, (8, 8, 3), dtype=np.uint8))
    return np.asarray(small.resize((side, side), Image.Resampling.BICUBIC))


def corrupted(name: str, severity: int, image: np.ndarray | None = None, key: int = 1):
    return corrupt(picture() if image is None else image, name, severity, key)


def test_the_names_that_help_shows_are_those_there_are():
    assert tuple(CORRUPTIONS) == CORRUPTION_NAMES


def test_constants_are_the_published_ones():
    for name, constants in PUBLISHED.items():
        assert list(CORRUPTIONS[name][1]) == constants
    ends = [(1.11, 0.01), (1.16, 0.01), (1.21, 0.02), (1.26, 0.02), (1.31, 0.03)]
    for zooms, (end, step) in zip(CORRUPTIONS["zoom_blur"][1], ends, strict=True):
        assert zooms == pytest.approx(np.arange(1, end, step))


@EACH
def test_noise_has_the_published_spread(severity):
    grey = np.full((256, 256, 3), 128, np.uint8)
    level = 128 / 255
    difference = corrupted("gaussian_noise", severity, grey) / 255.0
    scale = PUBLISHED["gaussian_noise"][severity - 1]
    theirs = np.clip(level + np.random.default_rng(5).normal(size=grey.shape, scale=scale), 0, 1)
    assert difference.std() == pytest.approx(theirs.std(), rel=0.01)
    photons = PUBLISHED["shot_noise"][severity - 1]
    found = corrupted("shot_noise", severity, grey)
    levels = {int(255 * min(i / photons, 1) + 1e-6) for i in range(300)}
    assert set(np.unique(found).tolist()) <= levels
    theirs = np.clip(np.random.default_rng(5).poisson(level * photons, grey.shape) / photons, 0, 1)
    assert (found / 255.0).std() == pytest.approx(theirs.std(), rel=0.02)
    amount = PUBLISHED["impulse_noise"][severity - 1]
    found = corrupted("impulse_noise", severity, grey)
    assert (found == 255).mean() == pytest.approx(amount / 2, rel=0.05)
    assert (found == 0).mean() == pytest.approx(amount / 2, rel=0.05)
    assert (found == 128).mean() == pytest.approx(1 - amount, rel=0.01)


@EACH
def test_contrast_and_brightness_follow_their_formulas(severity):
    image = picture(16)
    x, c = image / 255.0, PUBLISHED["contrast"][severity - 1]
    mean = x.mean(axis=(0, 1))
    expected = np.clip((x - mean) * c + mean, 0, 1) * 255
    assert np.abs(corrupted("contrast", severity, image) - np.floor(expected + 1e-6)).max() == 0
    c = PUBLISHED["brightness"][severity - 1]
    expected = np.empty_like(x)
    for place in np.ndindex(16, 16):
        h, s, v = colorsys.rgb_to_hsv(*x[place])
        expected[place] = colorsys.hsv_to_rgb(h, s, min(v + c, 1))
    found = corrupted("brightness", severity, image)
    assert np.abs(found - 255 * expected).max() <= 1


@EACH
def test_jpeg_and_pixelate_are_pillows(severity):
    image = picture(50)
    sink = io.BytesIO()
    Image.fromarray(image).save(sink, "JPEG", quality=PUBLISHED["jpeg_compression"][severity - 1])
    assert (corrupted("jpeg_compression", severity, image) == np.asarray(Image.open(sink))).all()
    side = int(50 * PUBLISHED["pixelate"][severity - 1])
    small = Image.fromarray(image).resize((side, side), Image.Resampling.BOX)
    expected = np.asarray(small.resize((50, 50), Image.Resampling.BOX))
    assert (corrupted("pixelate", severity, image) == expected).all()


@EACH
def test_blurs_spread_a_point_as_their_kernels(severity):
    point = np.zeros((81, 81, 3), np.uint8)
    point[40, 40] = 255
    deviation = PUBLISHED["gaussian_blur"][severity - 1]
    line = np.exp(-(np.arange(-40, 41) ** 2) / (2 * deviation**2))
    line[np.abs(np.arange(-40, 41)) > int(4 * deviation + 0.5)] = 0
    expected = 255 * np.outer(line, line) / line.sum() ** 2
    assert np.abs(corrupted("gaussian_blur", severity, point)[..., 1] - expected).max() <= 1
    radius, alias = PUBLISHED["defocus_blur"][severity - 1]
    kernel = disk(radius, alias)
    reach = len(kernel) // 2
    assert reach == (8 if radius <= 8 else radius)
    found = corrupted("defocus_blur", severity, point)[40 - reach : 41 + reach, 40 - reach :, 0]
    assert np.abs(found[:, : len(kernel)] - 255 * kernel).max() <= 1
    inside = np.hypot(*np.indices(kernel.shape) - reach)
    assert kernel[inside <= radius - 2].min() == pytest.approx(kernel.max(), rel=1e-3)
    assert kernel[inside > radius + 3].max(initial=0) == pytest.approx(0, abs=1e-9)


@EACH
def test_zoom_keeps_the_middle_and_flat_images(severity):
    flat = np.full((64, 64, 3), 90, np.uint8)
    assert (corrupted("zoom_blur", severity, flat) == 90).all()
    ramp = np.repeat(np.arange(64, dtype=np.uint8)[None, :, None] * 3, 64, axis=0).repeat(3, axis=2)
    found = corrupted("zoom_blur", severity, ramp).astype(float)
    zooms = CORRUPTIONS["zoom_blur"][1][severity - 1]
    slope = 3 * (1 + sum(1 / zoom for zoom in zooms)) / (len(zooms) + 1)
    assert (found[32, 40] - found[32, 24]).mean() / 16 == pytest.approx(slope, rel=0.06)


DRAWN = {"glass_blur", "motion_blur", "snow", "fog", "elastic_transform"}  # as noises, by the key


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_an_image_is_corrupted_the_same_wherever_it_stands(name):
    first, again = corrupted(name, 3, picture(33)), corrupted(name, 3, picture(33))
    assert first.shape == (33, 33, 3)
    assert first.dtype == np.uint8
    assert (first == again).all()
    other = corrupted(name, 3, picture(33), key=2)
    assert ("noise" in name or name in DRAWN) == bool((first != other).any())


def test_names_of_corruptions():
    assert parse_corruptions("all") == tuple(CORRUPTIONS)
    assert parse_corruptions("") == ()
    with pytest.raises(UserError, match="corruption 'frost'"):
        parse_corruptions("contrast,frost")


# ----------------------------------------------------------------------------- the line


def right(rng: np.random.Generator, share: float, n: int) -> np.ndarray:
    return rng.permutation(np.arange(n) < round(share * n))


def test_effective_robustness_is_the_residual_of_scipys_line():
    rng = np.random.default_rng(0)
    x, y = [0.5, 0.6, 0.7, 0.8], [0.3, 0.42, 0.5, 0.66]
    line = [np.stack([right(rng, share, 1000) for share in shares]) for shares in (x, y)]
    value = effective_robustness(right(rng, 0.65, 1000), right(rng, 0.55, 1000), *line)
    fitted = linregress(logit(x), logit(y))
    assert value["value"] == pytest.approx(
        0.55 - expit(fitted.slope * logit(0.65) + fitted.intercept)
    )
    assert (value["slope"], value["line_n"]) == (pytest.approx(fitted.slope), 4)
    low, high = value["interval"]
    assert low < value["value"] < high
    assert 0.04 < high - low < 0.12  # 1.96 · 2 · sqrt(.25 / 1000) is 0.062 of the one set alone


def test_a_line_needs_two_accuracies():
    rng = np.random.default_rng(0)
    one = right(rng, 0.5, 100)
    with pytest.raises(UserError, match="name with --real-trained"):
        effective_robustness(one, one, np.stack([one, one]), np.stack([one, one]))


# ----------------------------------------------------------------------------- ReaL labels


def test_real_labels_count_images_with_any(tmp_path):
    (tmp_path / "real.json").write_text(json.dumps([[0, 2], [], [1], [2]]))
    labels = read_real_labels(tmp_path / "real.json", 3)
    ids = [f"validation-ILSVRC2012_val_{n:08d}-abc" for n in (3, 1, 2, 4)]
    value = real_accuracy(ids, np.array([1, 2, 0, 0]), labels)
    assert (value["value"], value["n"]) == (pytest.approx(2 / 3), 3)
    with pytest.raises(UserError, match="has no number of a validation image"):
        real_accuracy(["test-17"], np.array([1]), labels)


@pytest.mark.parametrize("content", ["[[3]]", "{}", "[1]", "no json"])
def test_other_files_are_no_real_labels(tmp_path, content):
    (tmp_path / "real.json").write_text(content)
    with pytest.raises(UserError, match="--real-labels"):
        read_real_labels(tmp_path / "real.json", 3)
