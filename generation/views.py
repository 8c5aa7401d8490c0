"""Fixed-resolution views of images of any size, by a named rule that is recorded with them."""

from typing import Literal

import numpy as np
from PIL import Image

CropRule = Literal["center-crop", "pad"]


def make_view(image: Image.Image, resolution: int, rule: CropRule) -> np.ndarray:
    """uint8[resolution, resolution, C] of `image` (mode L or RGB).

    center-crop: halve by boxes while twice too large, scale the short side with bicubic, crop the
    centre (Dhariwal & Nichol 2021, the rule of ADM). pad: black borders up to a square whose side
    is a power of two, then boxes down; for small drawings that reach the border.
    """
    image = image if image.mode == "L" else image.convert("RGB")
    image = _padded(image) if rule == "pad" else image
    while min(image.size) >= 2 * resolution:
        image = image.reduce(2)
    scale = resolution / min(image.size)
    if scale != 1:
        size = (round(image.width * scale), round(image.height * scale))
        image = image.resize(size, Image.Resampling.BICUBIC)
    left, top = (image.width - resolution) // 2, (image.height - resolution) // 2
    pixels = np.asarray(image.crop((left, top, left + resolution, top + resolution)))
    return pixels.reshape(resolution, resolution, -1)


def _padded(image: Image.Image) -> Image.Image:
    side = 1 << (max(image.size) - 1).bit_length()
    square = Image.new(image.mode, (side, side))
    square.paste(image, ((side - image.width) // 2, (side - image.height) // 2))
    return square
