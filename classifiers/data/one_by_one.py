"""What is done to single images: crops and RandAugment in training, the fixed view in testing."""

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
from PIL import Image, ImageFilter, ImageOps

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
    changes: list[ImageFunction] = []
    if settings.rand_augment:
        changes.append(rand_augment(recipe))
    if settings.colour_distortion:
        changes.append(partial(distort_colour, strength=settings.colour_distortion))
    if settings.blur:
        changes.append(partial(maybe_blur, probability=settings.blur))
    if not changes:
        return place

    def augmented(image: Image.Image) -> np.ndarray:
        changed = Image.fromarray(place(image))
        for change in changes:
            changed = change(changed)
        return np.asarray(changed)

    return augmented


def distort_colour(image: Image.Image, strength: float) -> Image.Image:
    """SimCLR's (Chen et al. 2020, A): four of five images jittered, then one of five grey.

    Brightness, contrast and saturation times 1 ± 0.8 strength, hue turned by up to 0.2 strength, in
    random order. strength is at most 1.
    """
    from torchvision.transforms import functional

    def factor() -> float:
        return random.uniform(1 - 0.8 * strength, 1 + 0.8 * strength)

    changes: list[ImageFunction] = [
        lambda image: functional.adjust_brightness(image, factor()),
        lambda image: functional.adjust_contrast(image, factor()),
        lambda image: functional.adjust_saturation(image, factor()),
        lambda image: functional.adjust_hue(image, random.uniform(-0.2, 0.2) * strength),
    ]
    if random.random() < 0.8:
        random.shuffle(changes)
        for change in changes:
            image = change(image)
    return image.convert("L").convert("RGB") if random.random() < 0.2 else image


def maybe_blur(image: Image.Image, probability: float) -> Image.Image:
    """Gaussian, of a deviation of 0.1 to 2 pixels, with that probability (Chen et al. 2020, A)."""
    if random.random() >= probability:
        return image
    return image.filter(ImageFilter.GaussianBlur(random.uniform(0.1, 2.0)))


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
