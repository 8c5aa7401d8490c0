"""Fixed-resolution views of images of any size, by a named rule that is recorded with them."""

import numpy as np
from PIL import Image

from release.images.crop_rules import CropRule
from release.images.decoding import as_rgb

SHORT_SIDE = "short-side"  # of shrink, as it is recorded

LONGEST = 100


def make_view(image: Image.Image, resolution: int, rule: CropRule) -> np.ndarray:
    """uint8[resolution, resolution, 3] of `image`, whose pixels are taken as as_rgb says.

    center-crop: halve by boxes, rounding down, while twice too large, scale the short side with
    bicubic, crop the centre: exactly center_crop_arr of guided_diffusion/image_datasets.py
    (Dhariwal & Nichol 2021, ADM). Of images more than LONGEST times as long as wide the middle is
    taken first: scaling the rest would take memory alone. pad: black borders up to a square whose
    side is a power of two, then boxes down; for small drawings that reach the border.
    """
    image = as_rgb(image)
    image = _padded(image) if rule == "pad" else _middle(image)
    while min(image.size) >= 2 * resolution:
        image = image.reduce(2) if rule == "pad" else _halved(image)
    scale = resolution / min(image.size)
    if scale != 1:
        size = (round(image.width * scale), round(image.height * scale))
        image = image.resize(size, Image.Resampling.BICUBIC)
    left, top = (image.width - resolution) // 2, (image.height - resolution) // 2
    return np.asarray(image.crop((left, top, left + resolution, top + resolution)))


def shrink(image: Image.Image, side: int) -> Image.Image:
    """`image` in RGB with a short side of `side` pixels and its shape kept; never enlarged.

    By bicubic over all pixels that one becomes, as torchvision's and timm's Resize do to a PIL
    image. Of images more than LONGEST times as long as wide the middle is taken, as in make_view.
    """
    image = _middle(as_rgb(image))
    scale = side / min(image.size)
    if scale >= 1:
        return image
    # as torchvision: the short side exactly, the long one rounded down
    width, height = (side if n == min(image.size) else int(n * scale) for n in image.size)
    return image.resize((width, height), Image.Resampling.BICUBIC)


def _halved(image: Image.Image) -> Image.Image:
    return image.resize((image.width // 2, image.height // 2), Image.Resampling.BOX)


def _middle(image: Image.Image) -> Image.Image:
    """The middle of the long side, at most LONGEST times the short one."""
    most = LONGEST * min(image.size)
    if max(image.size) <= most:
        return image
    most -= (max(image.size) - most) % 2  # as much is cut off at both ends
    width, height = min(image.width, most), min(image.height, most)
    left, top = (image.width - width) // 2, (image.height - height) // 2
    return image.crop((left, top, left + width, top + height))


def _padded(image: Image.Image) -> Image.Image:
    side = 1 << (max(image.size) - 1).bit_length()
    square = Image.new(image.mode, (side, side))
    square.paste(image, ((side - image.width) // 2, (side - image.height) // 2))
    return square
