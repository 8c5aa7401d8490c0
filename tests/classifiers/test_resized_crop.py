"""Crops of training images against timm's and torchvision's, whose numbers and pixels they are."""

import random
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from timm.data.transforms import RandomResizedCropAndInterpolation
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional

from classifiers.data import batches, resized_crop
from classifiers.data.resized_crop import draw_crop, resize
from classifiers.recipes.recipe import load_recipe
from tests.conftest import ROOT

SIZES = [(500, 375), (64, 64), (33, 47), (7, 300), (300, 7), (16, 16), (1, 1)]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("share", [(0.08, 1.0), (0.3, 1.0), (1.0, 1.0)])
def test_crops_are_those_that_timm_draws(size: tuple[int, int], share: tuple[float, float]) -> None:
    image = Image.new("RGB", size)
    theirs = RandomResizedCropAndInterpolation(16, share)
    for seed in range(50):
        random.seed(seed)
        top, left, height, width = theirs.get_params(image, theirs.scale, theirs.ratio)
        after = random.getstate()
        random.seed(seed)
        assert draw_crop(size, share) == (left, top, width, height)
        assert random.getstate() == after


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("as_bytes", [True, False])
def test_pixels_are_those_of_torchvision(
    size: tuple[int, int], interpolation: str, as_bytes: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not as_bytes:  # a processor without vectors of bytes
        monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "DEFAULT")
        monkeypatch.setattr(resized_crop.platform, "machine", lambda: "x86_64")
    pixels = np.random.default_rng(0).integers(256, size=(*size[::-1], 3), dtype=np.uint8)
    tensor = torch.from_numpy(pixels).permute(2, 0, 1)
    for side in (16, 28):
        theirs = functional.resize(
            tensor, [side, side], InterpolationMode(interpolation), antialias=True
        )
        ours = resize(Image.fromarray(pixels), side, interpolation)
        assert np.array_equal(ours, theirs.permute(1, 2, 0).numpy())


def test_processes_that_crop_import_neither_of_the_two() -> None:
    recipe = load_recipe("imagenet-resnet50")
    modules = [batches.__name__, *batches._for_augmentation(recipe)]
    assert modules[1:] == [resized_crop.__name__]
    look = f"import sys, {', '.join(modules)}; print({{'timm', 'torchvision'}} & {{*sys.modules}})"
    found = subprocess.run(
        [sys.executable, "-c", look], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert found.stdout.strip() == "set()"
