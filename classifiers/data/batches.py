"""Training batches, augmented on the device; a batch follows from the seed and the step alone.

A set that fits lives on the device as one uint8 tensor. Any other is decoded, image by image, by
processes that work ahead, and so are sets whose recipe augments images one by one. The two give
the same batches.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from classifiers.data.augmentation import Framing, crop, mirror, mix_images, random_erasing
from classifiers.data.mixing import MixedVisits
from classifiers.data.one_by_one import drawn_from, testing_function, training_function
from classifiers.recipes.recipe import ClassifierRecipe
from generation.networks.timm_classifier import normalise, to_channels
from generation.training.data.loaders import arriving, cores, decoded_ahead, decoding_processes
from generation.training.data.order import Visits, derived_seed
from release.layout.image_sets import LabelledImages
from release.streaming.encoded import EncodedImages

ImageData = LabelledImages | EncodedImages
# Batches of resident images that are cropped at once. A training step leaves no cache warm and no
# thread awake, so each small operation before it takes several times as long as by itself.
CROPPED_AT_ONCE = 8
FOR_AUGMENTATION = ("timm.data", "torchvision.transforms.v2")  # slow to import
FRAMING = 1  # what numbers are drawn for, kept apart from others of the same step


@dataclass(frozen=True)
class Part:
    """This process's share of each batch: every `of`-th image from `index` on."""

    index: int = 0
    of: int = 1


class Batches(Protocol):
    """float32[B,C,H,W] normalised, and labels int64[B], or float32[B,classes] if mixed."""

    def batch(self, step: int) -> tuple[Tensor, Tensor]: ...


def open_batches(
    recipe: ClassifierRecipe,
    data: ImageData,
    visits: Visits | MixedVisits,
    seed: int,
    device: torch.device,
    steps: range,
    part: Part = Part(),
    loaders: int | None = None,
) -> Batches:
    """The batches of `steps`, which must be asked for in that order.

    loaders: processes that decode, for sets that are not resident; by default one a core of those
    that this process may take, less one, which keeps the device busy.
    """
    if isinstance(data, LabelledImages) and not recipe.augmentation.one_by_one:
        return ResidentBatches(recipe, data, visits, seed, device, part)
    return StreamedBatches(recipe, data, visits, seed, device, steps, part, loaders)


class ResidentBatches:
    """All images of a training set on one device, augmented batch by batch."""

    def __init__(
        self,
        recipe: ClassifierRecipe,
        data: LabelledImages,
        visits: Visits | MixedVisits,
        seed: int,
        device: torch.device,
        part: Part = Part(),
    ) -> None:
        images = _padded(to_channels(data.images, recipe.channels), recipe)
        self._padded = torch.from_numpy(images).to(device)
        self._labels = torch.from_numpy(data.labels).to(device)
        self._classes = len(data.class_ids)
        self._recipe, self._visits, self._seed, self._part = recipe, visits, seed, part
        self._ready: dict[int, tuple[Tensor, Tensor]] = {}

    def batch(self, step: int) -> tuple[Tensor, Tensor]:
        """Of any step; fastest if they follow each other."""
        if step not in self._ready:
            self._ready = self._framed(range(step, step + CROPPED_AT_ONCE))
        images, labels = self._ready.pop(step)
        return finished(images, labels, self._classes, self._recipe)

    def _framed(self, steps: range) -> dict[int, tuple[Tensor, Tensor]]:
        """Images uint8[B,C,H,W] and labels int64[B] of each step."""
        recipe, seed, part = self._recipe, self._seed, self._part
        chosen = [_share(recipe, self._visits, seed, step, part)[0] for step in steps]
        rows = torch.from_numpy(np.concatenate(chosen)).to(self._padded.device)
        size = len(chosen[0])
        framing = Framing.join([_framing(recipe, size, seed, step, part) for step in steps])
        images = framed(self._padded, rows, framing, recipe).split(size)
        labels = self._labels[rows].split(size)
        return dict(zip(steps, zip(images, labels, strict=True), strict=True))


class StreamedBatches:
    """A training set read image by image, ahead of need.

    The processes that read it end when it is let go of.
    """

    def __init__(
        self,
        recipe: ClassifierRecipe,
        data: ImageData,
        visits: Visits | MixedVisits,
        seed: int,
        device: torch.device,
        steps: range,
        part: Part = Part(),
        loaders: int | None = None,
    ) -> None:
        keys = _Keys(recipe, visits, seed, steps, part)
        decoded = _decoded(recipe, data, seed, keys, device, decoding_processes(loaders))
        framing = _Framed(recipe, decoded, data.labels, seed, device, part)
        self._arriving = arriving(steps, framing, device)
        self._classes = len(data.class_ids)
        self._recipe, self._steps = recipe, iter(steps)

    def batch(self, step: int) -> tuple[Tensor, Tensor]:
        """Of the next step."""
        if step != next(self._steps, None):
            raise ValueError(f"step {step} is asked for out of turn")
        images, labels = next(self._arriving)
        return finished(images, labels, self._classes, self._recipe)


@dataclass(frozen=True)
class _Framed:
    """Decoded batches as the device gets them: framed images uint8[B,C,H,W], labels int64[B].

    Apart from StreamedBatches, which would otherwise hold itself through the generator, and its
    processes until Python ends.
    """

    recipe: ClassifierRecipe
    decoded: Iterator[tuple[Tensor, ...]]
    labels: np.ndarray
    seed: int
    device: torch.device
    part: Part

    def __call__(self, step: int) -> tuple[Tensor, Tensor]:
        images, rows = next(self.decoded)
        labels = torch.from_numpy(self.labels[rows.numpy()]).to(self.device, non_blocking=True)
        pixels = images.to(self.device, non_blocking=True)
        own = torch.arange(len(pixels), device=self.device)
        framing = _framing(self.recipe, len(pixels), self.seed, step, self.part)
        return framed(pixels, own, framing, self.recipe), labels


def views(
    recipe: ClassifierRecipe, data: EncodedImages, batch: int, loaders: int | None
) -> Iterator[np.ndarray]:
    """uint8[B,C,H,W] of all images in turn, each in the recipe's view."""
    rows = np.arange(len(data))
    processes = cores() if loaders is None else loaders
    keys = [list(zip(part, part, strict=True)) for part in np.split(rows, rows[batch::batch])]
    for images, _ in _decoded(recipe, data, None, keys, torch.device("cpu"), processes):
        yield images.numpy()


def framed(padded: Tensor, rows: Tensor, framing: Framing, recipe: ClassifierRecipe) -> Tensor:
    """The images `rows` of uint8[N,C,P,P], cropped and mirrored: uint8[len(rows),C,H,W]."""
    images = crop(padded, rows, recipe.resolution, framing)
    return mirror(images, framing) if recipe.augmentation.flip else images


def finished(
    images: Tensor, labels: Tensor, classes: int, recipe: ClassifierRecipe
) -> tuple[Tensor, Tensor]:
    """Framed images uint8[B,C,H,W], normalised, erased and mixed, with their labels."""
    settings = recipe.augmentation
    images = normalise(images, recipe)
    if settings.erasing > 0:
        images = random_erasing(images, settings.erasing, settings.erasing_fill)
    if settings.mixup > 0 or settings.cutmix > 0:
        images, labels = mix_images(images, labels, classes, settings)
    return images.contiguous(memory_format=torch.channels_last), labels


def _padded(images: np.ndarray, recipe: ClassifierRecipe) -> np.ndarray:
    """uint8[N,C,H,W] with a border to shift into."""
    shift = (recipe.augmentation.shift, recipe.augmentation.shift)
    mode: Literal["constant", "reflect"] = (
        "constant" if recipe.augmentation.border == "black" else "reflect"
    )
    return np.pad(images, ((0, 0), (0, 0), shift, shift), mode)


def _share(
    recipe: ClassifierRecipe, visits: Visits | MixedVisits, seed: int, step: int, part: Part
) -> tuple[np.ndarray, np.ndarray]:
    """What this process sees of one step: rows, and their places in the run."""
    rows, places = visits.batch_rows(recipe.batch, seed, step, recipe.augmentation.repeats)
    return rows[part.index :: part.of], places[part.index :: part.of]


def _framing(recipe: ClassifierRecipe, count: int, seed: int, step: int, part: Part) -> Framing:
    """Of this process's images of one step, as one process alone would frame them."""
    generator = torch.Generator()
    generator.manual_seed(derived_seed(seed, 1 + step, 0, FRAMING))
    whole = Framing.draw(count * part.of, 2 * recipe.augmentation.shift, generator)
    own = slice(part.index, None, part.of)
    return Framing(whole.corners[:, own], whole.mirrored[own])


Key = tuple[int, int]  # an image's row, and the place in the run that its random numbers follow


@dataclass(frozen=True)
class _Keys:
    """The keys of each step's images, as DataLoader's batch sampler."""

    recipe: ClassifierRecipe
    visits: Visits | MixedVisits
    seed: int
    steps: range
    part: Part

    def __iter__(self) -> Iterator[list[Key]]:
        for step in self.steps:
            rows, places = _share(self.recipe, self.visits, self.seed, step, self.part)
            yield list(zip(rows.tolist(), places.tolist(), strict=True))


@dataclass(frozen=True)
class _Decoder:
    """Whole batches: uint8[B,C,P,P] and rows int64[B].

    seed: of the training; None to take the recipe's view as in testing.
    """

    recipe: ClassifierRecipe
    data: ImageData
    seed: int | None

    def __call__(self, keys: Sequence[Key]) -> tuple[Tensor, Tensor]:
        change = (testing_function if self.seed is None else training_function)(self.recipe)
        images = []
        found = self._images([row for row, _ in keys])
        for image, (_, place) in zip(found, keys, strict=True):
            with drawn_from(self.seed or 0, place):
                images.append(change(image))
        pixels = to_channels(np.stack(images), self.recipe.channels)
        if self.seed is not None:
            pixels = _padded(pixels, self.recipe)
        return torch.from_numpy(pixels), torch.tensor([row for row, _ in keys])

    def _images(self, rows: Sequence[int]) -> Iterator[Image.Image]:
        if isinstance(self.data, EncodedImages):
            return self.data.images(rows)
        return (Image.fromarray(self.data.images[row]) for row in rows)


def _decoded(
    recipe: ClassifierRecipe,
    data: ImageData,
    seed: int | None,
    keys: Iterable[Sequence[Key]],
    device: torch.device,
    loaders: int,
) -> Iterator[tuple[Tensor, ...]]:
    """Images in memory are handed out here: to other processes they would have to be copied."""
    processes = 0
    if isinstance(data, EncodedImages) and loaders:
        processes, data = loaders, data.mapped_alone()
    augmented = seed is not None and recipe.augmentation.one_by_one
    preload = (__name__, *(FOR_AUGMENTATION if augmented else ()))
    return decoded_ahead(_Decoder(recipe, data, seed), keys, device, processes, preload)
