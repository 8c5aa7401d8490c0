"""Training batches, augmented on the device; a batch follows from the seed and the step alone.

A set that fits lives on the device as one uint8 tensor. Any other is decoded, image by image, by
processes that work ahead, and so are sets whose recipe augments images one by one. The two give
the same batches.
"""

import multiprocessing
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from threading import Thread
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from classifiers.data.augmentation import Framing, crop, mirror, mix_images, random_erasing
from classifiers.data.encoded import EncodedImages
from classifiers.data.one_by_one import drawn_from, testing_function, training_function
from classifiers.data.order import Visits, batch_rows, derived_seed
from classifiers.recipes.recipe import ClassifierRecipe
from generation.networks.timm_classifier import normalise, to_channels
from release.errors import UserError
from release.layout.image_sets import LabelledImages

if TYPE_CHECKING:
    from multiprocessing.context import ForkServerContext

ImageData = LabelledImages | EncodedImages
AHEAD = 2  # batches that each process has ready
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
    visits: Visits,
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
        visits: Visits,
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
        visits: Visits,
        seed: int,
        device: torch.device,
        steps: range,
        part: Part = Part(),
        loaders: int | None = None,
    ) -> None:
        keys = _Keys(recipe, visits, seed, steps, part)
        processes = max(1, _cores() - 1) if loaders is None else loaders
        decoded = iter(_loader(_Decoded(recipe, data, seed), keys, device, processes))
        self._arriving = _Arrivals(recipe, decoded, data.labels, seed, device, part).each(steps)
        self._classes = len(data.class_ids)
        self._recipe, self._steps = recipe, iter(steps)

    def batch(self, step: int) -> tuple[Tensor, Tensor]:
        """Of the next step."""
        if step != next(self._steps, None):
            raise ValueError(f"step {step} is asked for out of turn")
        images, labels = next(self._arriving)
        return finished(images, labels, self._classes, self._recipe)


@dataclass(frozen=True)
class _Arrivals:
    """Decoded batches on their way to the device.

    Apart from StreamedBatches, which would otherwise hold itself through the generator, and its
    processes until Python ends.
    """

    recipe: ClassifierRecipe
    decoded: "Iterator[tuple[Tensor, Tensor] | str]"
    labels: np.ndarray
    seed: int
    device: torch.device
    part: Part

    def each(self, steps: range) -> Iterator[tuple[Tensor, Tensor]]:
        """Framed images uint8[B,C,H,W] and labels int64[B] of each step, on the device.

        On a GPU one is copied and framed, on a stream of its own, while that before it is computed
        on: by the time it is asked for it has arrived.
        """
        if self.device.type != "cuda":
            yield from map(self._framed, steps)
            return
        stream, computing = torch.cuda.Stream(self.device), torch.cuda.current_stream(self.device)
        arrived: tuple[Tensor, Tensor] | None = None
        for step in steps:
            with torch.cuda.stream(stream):
                following = self._framed(step)
            if arrived is not None:
                yield arrived
            computing.wait_stream(stream)
            for tensor in following:
                tensor.record_stream(computing)
            arrived = following
        if arrived is not None:
            yield arrived

    def _framed(self, step: int) -> tuple[Tensor, Tensor]:
        images, rows = _next(self.decoded)
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
    processes = _cores() if loaders is None else loaders
    keys = [list(zip(part, part, strict=True)) for part in np.split(rows, rows[batch::batch])]
    batches = iter(_loader(_Decoded(recipe, data, None), keys, torch.device("cpu"), processes))
    for _ in keys:
        yield _next(batches)[0].numpy()


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
    recipe: ClassifierRecipe, visits: Visits, seed: int, step: int, part: Part
) -> tuple[np.ndarray, np.ndarray]:
    """What this process sees of one step: rows, and their places in the run."""
    rows, places = batch_rows(visits, recipe.batch, seed, step, recipe.augmentation.repeats)
    return rows[part.index :: part.of], places[part.index :: part.of]


def _framing(recipe: ClassifierRecipe, count: int, seed: int, step: int, part: Part) -> Framing:
    """Of this process's images of one step."""
    generator = torch.Generator()
    generator.manual_seed(derived_seed(seed, 1 + step, part.index, FRAMING))
    return Framing.draw(count, 2 * recipe.augmentation.shift, generator)


Key = tuple[int, int]  # an image's row, and the place in the run that its random numbers follow


@dataclass(frozen=True)
class _Keys:
    """The keys of each step's images, as DataLoader's batch sampler."""

    recipe: ClassifierRecipe
    visits: Visits
    seed: int
    steps: range
    part: Part

    def __iter__(self) -> Iterator[list[Key]]:
        for step in self.steps:
            rows, places = _share(self.recipe, self.visits, self.seed, step, self.part)
            yield list(zip(rows.tolist(), places.tolist(), strict=True))

    def __len__(self) -> int:
        return len(self.steps)


@dataclass(frozen=True)
class _Decoded(Dataset[tuple[Tensor, Tensor] | str]):
    """Whole batches: uint8[B,C,P,P] and rows int64[B], or what is wrong with an image.

    seed: of the training; None to take the recipe's view as in testing.
    """

    recipe: ClassifierRecipe
    data: ImageData
    seed: int | None

    def __getitems__(self, keys: Sequence[Key]) -> tuple[Tensor, Tensor] | str:
        change = (testing_function if self.seed is None else training_function)(self.recipe)
        images = []
        try:
            found = self._images([row for row, _ in keys])
            for image, (_, place) in zip(found, keys, strict=True):
                with drawn_from(self.seed or 0, place):
                    images.append(change(image))
        except UserError as error:
            return str(error)
        pixels = to_channels(np.stack(images), self.recipe.channels)
        if self.seed is not None:
            pixels = _padded(pixels, self.recipe)
        return torch.from_numpy(pixels), torch.tensor([row for row, _ in keys])

    def _images(self, rows: Sequence[int]) -> Iterator[Image.Image]:
        if isinstance(self.data, EncodedImages):
            return self.data.images(rows)
        return (Image.fromarray(self.data.images[row]) for row in rows)


def _loader(
    data: _Decoded, keys: "_Keys | list[list[Key]]", device: torch.device, loaders: int
) -> "DataLoader[tuple[Tensor, Tensor] | str]":
    """Images in memory are handed out here: to other processes they would have to be copied."""
    processes = 0
    if isinstance(data.data, EncodedImages):
        processes = loaders
        data = replace(data, data=data.data.mapped_alone()) if processes else data
    if processes and multiprocessing.current_process().daemon:
        raise UserError(
            "this Dask worker may not start processes that decode images: start workers with "
            "DASK_DISTRIBUTED__WORKER__DAEMON=False in their environment"
        )
    augmented = data.seed is not None and data.recipe.augmentation.one_by_one
    return DataLoader(
        data,
        batch_sampler=keys,
        num_workers=processes,
        collate_fn=_as_it_is,
        pin_memory=device.type == "cuda",
        generator=torch.Generator(),  # of its own, so that none is drawn from torch's
        prefetch_factor=AHEAD if processes else None,
        multiprocessing_context=_forkserver(augmented) if processes else None,
        worker_init_fn=_end_with_training,
    )


def _cores() -> int:
    """That this process may take: an equal share if it was launched beside others."""
    beside = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))  # as torchrun and accelerate say
    return max(1, len(os.sched_getaffinity(0)) // beside)


def _forkserver(augmented: bool) -> "ForkServerContext":
    """Starts processes that have imported what they need: once for all, not each for itself."""
    context = multiprocessing.get_context("forkserver")
    modules = [__name__, *(FOR_AUGMENTATION if augmented else ()), "classifiers.data.frozen"]
    context.set_forkserver_preload(modules)
    return context


def _end_with_training(worker: int) -> None:  # noqa: ARG001
    """Have this process end when the training's does, however that ends.

    Torch watches for it by the parent's id, which here is the fork server's; that waits for its
    children in turn, so both would outlive a training that was killed.
    """
    training = multiprocessing.parent_process()

    def wait() -> None:
        if training is not None:
            training.join()
            os._exit(1)

    Thread(target=wait, daemon=True).start()


def _as_it_is(batch: Any) -> Any:
    return batch


def _next(batches: Iterator[tuple[Tensor, Tensor] | str]) -> tuple[Tensor, Tensor]:
    """UserError for an image that cannot be decoded, wherever that was found."""
    found = next(batches)
    if isinstance(found, str):
        raise UserError(found)
    return found
