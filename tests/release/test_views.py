"""center-crop is ADM's rule exactly; pad stays as it was."""

import hashlib

import numpy as np
import pytest
from PIL import Image

from release.images.crop_rules import RECORDED_RULES
from release.images.views import make_view


def center_crop_arr(pil_image: Image.Image, image_size: int) -> np.ndarray:
    """As in guided_diffusion/image_datasets.py of openai/guided-diffusion."""
    while min(*pil_image.size) >= 2 * image_size:
        pil_image = pil_image.resize(
            tuple(x // 2 for x in pil_image.size), resample=Image.Resampling.BOX
        )
    scale = image_size / min(*pil_image.size)
    pil_image = pil_image.resize(
        tuple(round(x * scale) for x in pil_image.size), resample=Image.Resampling.BICUBIC
    )
    arr = np.array(pil_image)
    crop_y = (arr.shape[0] - image_size) // 2
    crop_x = (arr.shape[1] - image_size) // 2
    return arr[crop_y : crop_y + image_size, crop_x : crop_x + image_size]


def photo(width: int, height: int) -> Image.Image:
    noise = np.random.default_rng(width).integers(256, size=(height // 5, width // 5, 3))
    return Image.fromarray(noise.astype(np.uint8)).resize((width, height), Image.Resampling.BICUBIC)


@pytest.mark.parametrize("size", [(500, 375), (375, 500), (333, 501), (64, 64), (65, 70), (20, 30)])
@pytest.mark.parametrize("resolution", [64, 32])
def test_center_crop_is_adms_rule(size: tuple[int, int], resolution: int):
    image = photo(*size)
    expected = center_crop_arr(image, resolution)
    assert np.array_equal(make_view(image, resolution, "center-crop"), expected)


@pytest.mark.parametrize("size", [(1, 100_001), (100_001, 1)])
def test_a_very_long_image_needs_no_memory_for_what_is_cut_off(size: tuple[int, int]):
    image = Image.new("RGB", size, (255, 0, 0))
    image.paste((0, 0, 255), (size[0] // 2, size[1] // 2, size[0] // 2 + 1, size[1] // 2 + 1))
    view = make_view(image, 512, "center-crop")
    assert view.shape == (512, 512, 3)
    assert view[256, 256].tolist() == [0, 0, 255]


def test_the_rule_that_rounded_up_is_not_taken_for_this_one():
    assert RECORDED_RULES == {"center-crop": "center-crop-2", "pad": "pad"}


def test_pad_makes_the_bytes_it_always_made():
    digest = hashlib.sha256()
    for resolution in (16, 32):
        digest.update(make_view(photo(28, 28), resolution, "pad").tobytes())
        digest.update(make_view(photo(45, 31), resolution, "pad").tobytes())
    assert digest.hexdigest() == "002b93f87d899350756ba7dce82cec67a684f450b61481406dcc0ee528bc3cc5"
