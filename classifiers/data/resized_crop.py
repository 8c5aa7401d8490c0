"""Inception's random crop, as timm draws it and torchvision resizes it, without either's imports.

Processes that decode need nothing else of the two, which take 120 MB and 2 s of each fork server.
The numbers drawn and the pixels are theirs, bit for bit: tests/classifiers/test_resized_crop.py.
"""

import math
import platform
import random

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import interpolate

SHAPES = (3 / 4, 4 / 3)  # least and greatest width / height
TRIES = 10


def draw_crop(size: tuple[int, int], share: tuple[float, float]) -> tuple[int, int, int, int]:
    """Left, top, width and height of a part of an image of `size`, which is width and height.

    share: least and greatest of the image's area. After TRIES that do not fit in, the centre of a
    shape within SHAPES. timm.data.transforms.RandomResizedCropAndInterpolation.get_params.
    """
    width, height = size
    for _ in range(TRIES):
        area = random.uniform(*share) * (width * height)
        shape = math.exp(random.uniform(*map(math.log, SHAPES)))
        wide, high = round(math.sqrt(area * shape)), round(math.sqrt(area / shape))
        if wide <= width and high <= height:
            top = random.randint(0, height - high)
            return random.randint(0, width - wide), top, wide, high
    wide, high = width, height
    if width / height < SHAPES[0]:
        high = round(width / SHAPES[0])
    elif width / height > SHAPES[1]:
        wide = round(height * SHAPES[1])
    return (width - wide) // 2, (height - high) // 2, wide, high


def resize(image: Image.Image, side: int, interpolation: str) -> np.ndarray:
    """uint8[side,side,C] of an image, antialiased; interpolation: bilinear or bicubic.

    torchvision.transforms.v2.functional.resize of a tensor on the CPU.
    """
    part = np.array(image)
    if part.shape[:2] == (side, side):
        return part
    height, width, channels = part.shape
    strides = (part.size, 1, width * channels, channels)  # so that torch keeps the channels last
    pixels = torch.from_numpy(part).as_strided((1, channels, height, width), strides)
    if interpolation == "bicubic" or _bilinear_takes_bytes():
        return _interpolated(pixels, side, interpolation)
    return _interpolated(pixels.float(), side, interpolation)


def _interpolated(pixels: Tensor, side: int, interpolation: str) -> np.ndarray:
    size = [side, side]
    found = interpolate(pixels, size, mode=interpolation, align_corners=False, antialias=True)
    if found.is_floating_point():
        found = found.round_().to(torch.uint8)
    return np.asarray(found[0].permute(1, 2, 0))


def _bilinear_takes_bytes() -> bool:
    vectors = torch.backends.cpu.get_cpu_capability() in ("AVX2", "AVX512")
    return vectors or platform.machine() in ("aarch64", "arm64")
