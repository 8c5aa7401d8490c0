"""What is done to single images: crops and RandAugment in training, the fixed view in testing."""

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from classifiers.recipes.recipe import ClassifierRecipe, View
from release.errors import UserError

ImageFunction = Callable[[Image.Image], Image.Image]
PixelFunction = Callable[[Image.Image], np.ndarray]  # to uint8[H,W,3]
RESAMPLING = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}
TRANSLATION = 0.45  # greatest shift of RandAugment's constant kind, share of the side, as timm's


def fit_view(image: Image.Image, resolution: int, view: View) -> Image.Image:
    """The recipe's view of an image of any size; one that has the size already stays as it is."""
    if image.size == (resolution, resolution):
        return image
    side = round(resolution / view.crop_share)
    scale = side / min(image.size)
    size = (max(side, round(image.width * scale)), max(side, round(image.height * scale)))
    image = image.resize(size, RESAMPLING[view.interpolation])
    left, top = (image.width - resolution) // 2, (image.height - resolution) // 2
    return image.crop((left, top, left + resolution, top + resolution))


def training_function(recipe: ClassifierRecipe) -> PixelFunction:
    """An RGB image to what a batch is made of; its randomness is that of `drawn_from`."""
    settings = recipe.augmentation
    place = testing_function(recipe) if settings.resized_crop is None else _resized_crop(recipe)
    if not settings.rand_augment:
        return place
    change = rand_augment(recipe)
    return lambda image: np.asarray(change(Image.fromarray(place(image))))


def testing_function(recipe: ClassifierRecipe) -> PixelFunction:
    """An RGB image to the recipe's view of it."""
    return lambda image: np.asarray(fit_view(image, recipe.resolution, recipe.view))


def _resized_crop(recipe: ClassifierRecipe) -> PixelFunction:
    """Inception's random crop, drawn by timm and resized by torchvision, on x86 up to three times
    as fast as by Pillow, which timm leaves it to.

    Bilinear, both agree to a grey level; bicubic, where overshoot is cut between the two passes,
    they differ by up to 30 at hard edges that one side enlarges and the other reduces.
    """
    import torch
    from timm.data.transforms import RandomResizedCropAndInterpolation
    from torchvision.transforms import InterpolationMode
    from torchvision.transforms.v2 import functional

    size = [recipe.resolution, recipe.resolution]
    interpolation = InterpolationMode(recipe.view.interpolation)
    drawn = RandomResizedCropAndInterpolation(size, recipe.augmentation.resized_crop)

    def place(image: Image.Image) -> np.ndarray:
        top, left, height, width = drawn.get_params(image, drawn.scale, drawn.ratio)
        part = np.array(image.crop((left, top, left + width, top + height)))
        pixels = torch.from_numpy(part).permute(2, 0, 1)
        resized = functional.resize(pixels, size, interpolation, antialias=True)
        return np.asarray(resized.permute(1, 2, 0))

    return place


def rand_augment(recipe: ClassifierRecipe) -> ImageFunction:
    """timm's RandAugment (Cubuk et al. 2020), set up as timm's own training does."""
    from timm.data.auto_augment import rand_augment_transform

    mean = recipe.mean * 3 if len(recipe.mean) == 1 else recipe.mean
    settings: dict[str, Any] = {
        "translate_const": int(recipe.resolution * TRANSLATION),
        "img_mean": tuple(min(255, round(255 * value)) for value in mean),
        "interpolation": RESAMPLING[recipe.view.interpolation],
    }
    try:
        transform: Any = rand_augment_transform(recipe.augmentation.rand_augment, settings)
    except (AssertionError, KeyError, ValueError):
        raise UserError(
            f"classifier recipe {recipe.name}: rand_augment {recipe.augmentation.rand_augment!r} "
            "is no policy of timm's, such as rand-m9-mstd0.5-inc1"
        ) from None
    for operation in transform.ops:
        if operation.name.startswith("Posterize"):
            operation.aug_fn = _posterize
    augment: ImageFunction = transform
    return augment


def _posterize(image: Image.Image, bits: int, **_: Any) -> Image.Image:
    """Keep the highest `bits` of each value. With none left, or fewer as timm counts them beyond
    magnitude 10, all is black; Pillow 13 refuses it."""
    if bits >= 8:
        return image
    return ImageOps.posterize(image, bits) if bits > 0 else Image.new(image.mode, image.size)


@contextmanager
def drawn_from(seed: int, place: int) -> Iterator[None]:
    """All random numbers within follow from both; those of the process go on as before."""
    before = random.getstate(), np.random.get_state()
    numbers = np.random.SeedSequence([seed, place]).generate_state(2)
    random.seed(int(numbers[0]))
    np.random.seed(numbers[1])
    try:
        yield
    finally:
        random.setstate(before[0])
        np.random.set_state(before[1])
