"""Labelled images as training data: which of them a step sees, and from what random numbers.

The order is one of all processes: step after step takes the next `batch` places of it, each process
and part its stretch of those. So what is learned does not depend on how many processes learn it.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch
from torch import Tensor

from generation.diffusion.random_numbers import ImageRandom
from generation.networks.timm_classifier import to_channels
from generation.training.config import TrainingConfig
from generation.training.data.dropout import ImageDropout
from generation.training.data.loaders import arriving, decoded_ahead, decoding_processes
from generation.training.data.order import Visits, batch_rows, derived_seed
from generation.training.loop.loop import require_even_batch
from generation.training.processes import seed_torch
from release.errors import UserError
from release.streaming.encoded import EncodedImages

if TYPE_CHECKING:
    from accelerate import PartialState

OTHERS = 1  # what torch's generators are seeded for: all that is drawn from no ImageRandom


class Images(Protocol):
    """What a stage learns from.

    read: of each batch of rows in turn, on the device, the images uint8[n,C,H,W], the conditions
    int64[n] and, for super-resolution, the parents uint8[n,C,h,w]. draw: what a step learns from,
    of what `read` gave.
    """

    def __len__(self) -> int: ...
    @property
    def draw(self) -> "Draw": ...
    def read(
        self, batches: Iterator[np.ndarray], device: torch.device
    ) -> Iterator[tuple[Tensor, ...]]: ...
    def parent_of(self, condition: int) -> Tensor | None:
        """uint8[C,h,w]: that of the first image of the condition; None for a base stage."""


class Draw(Protocol):
    """Makes a part of a batch of what Images.read gave, with `flip` half of it mirrored."""

    def __call__(
        self, read: tuple[Tensor, ...], rng: ImageRandom, *, flip: bool
    ) -> "DrawnImages": ...


@dataclass(frozen=True)
class TrainingImages:
    """Everything a stage learns from, in memory; on the device, once it is read.

    images uint8[N,C,H,W] at the stage's resolution; parents uint8[N,C,h,w] at the parent's, None
    for a base stage; conditions int64[N], what the network is told of each image.
    """

    images: Tensor
    parents: Tensor | None
    conditions: Tensor

    def __len__(self) -> int:
        return len(self.images)

    @property
    def draw(self) -> Draw:
        return drawn_images

    def read(
        self, batches: Iterator[np.ndarray], device: torch.device
    ) -> Iterator[tuple[Tensor, ...]]:
        kinds = (self.images, self.conditions, self.parents)
        resident = [kind.to(device) for kind in kinds if kind is not None]
        for rows in batches:
            chosen = torch.from_numpy(rows).to(device)
            yield tuple(kind[chosen] for kind in resident)

    def parent_of(self, condition: int) -> Tensor | None:
        if self.parents is None:
            return None
        return self.parents[int(torch.argmax((self.conditions == condition).int()))]


@dataclass(frozen=True)
class StreamedImages:
    """Images that stay encoded in their release; those of a batch are decoded ahead of need.

    views: at the stage's resolution and, for super-resolution, at the parent's, each with its side
    in pixels. channels: that the network sees. told: int64[classes], what it is told of a class.
    loaders: processes that decode, by default one a core less one; none with 0.
    """

    views: tuple[tuple[int, EncodedImages], ...]
    channels: int
    told: Tensor
    loaders: int | None = None

    def __len__(self) -> int:
        return len(self.views[0][1])

    @property
    def draw(self) -> Draw:
        return drawn_images

    def read(
        self, batches: Iterator[np.ndarray], device: torch.device
    ) -> Iterator[tuple[Tensor, ...]]:
        keys = (rows.tolist() for rows in batches)
        processes = decoding_processes(self.loaders)
        decoded = decoded_ahead(self.decode, keys, device, processes, (__name__,))

        def placed(batch: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            return tuple(tensor.to(device, non_blocking=True) for tensor in batch)

        return arriving(decoded, placed, device)

    def decode(self, rows: Sequence[int]) -> tuple[Tensor, ...]:
        """As `read` gives them, here; UserError for an image that is none, or of another size."""
        own, *parents = (
            torch.from_numpy(to_channels(decoded(images, rows, side), self.channels))
            for side, images in self.views
        )
        return own, self.told[torch.from_numpy(self.views[0][1].labels[rows])], *parents

    def parent_of(self, condition: int) -> Tensor | None:
        if len(self.views) == 1:
            return None
        classes = torch.nonzero(self.told == condition).flatten().numpy()
        row = int(np.argmax(np.isin(self.views[0][1].labels, classes)))
        return self.decode([row])[2][0]


def decoded(images: EncodedImages, rows: Sequence[int], side: int) -> np.ndarray:
    """uint8[n,side,side,3]; UserError, naming the image, for one that is not of that size."""
    found = np.empty((len(rows), side, side, 3), np.uint8)
    for place, (row, image) in enumerate(zip(rows, images.images(rows), strict=True)):
        if image.size != (side, side):
            raise UserError(
                f"{images.named(row)}: is {image.width} x {image.height}, not {side} x {side} as "
                "its configuration says"
            )
        found[place] = np.asarray(image)
    return found


@dataclass(frozen=True)
class DrawnImages:
    """Images drawn for a part of a batch, and what further random numbers are drawn of them from.

    As Images.read gives them, some mirrored; or latents, float32[n,C,h,w] as a network sees them.
    rng: of these images; an objective draws its noise from it.
    """

    images: Tensor
    parents: Tensor | None
    conditions: Tensor
    rng: ImageRandom


def drawn_images(read: tuple[Tensor, ...], rng: ImageRandom, *, flip: bool) -> DrawnImages:
    """Of what Images.read gave; with `flip` half of them are mirrored, their parents too."""
    images, conditions, *rest = read
    parents = rest[0] if rest else None
    if flip:
        mirrored = (rng.uniform() < 0.5)[:, None, None, None]
        images = torch.where(mirrored, images.flip(3), images)
        parents = None if parents is None else torch.where(mirrored, parents.flip(3), parents)
    return DrawnImages(images, parents, conditions, rng)


@dataclass(frozen=True)
class Share:
    """What one process takes of each batch. batch: images of all processes together; parts: in how
    many each takes its own."""

    batch: int
    parts: int = 1
    process: int = 0
    processes: int = 1

    def places(self, part: int) -> np.ndarray:
        """int64: those in the batch of a part of this process."""
        size = self.batch // (self.processes * self.parts)
        start = (self.process * self.parts + part) * size
        return np.arange(start, start + size)


@dataclass
class ImageBatches:
    """The images of each part of each step, as one process sees them.

    updates: of a step, each with a batch of its own.
    """

    data: Images
    share: Share
    seed: int
    flip: bool
    device: torch.device
    updates: int = 1
    _next: tuple[int, int] | None = field(default=None, init=False)
    _arriving: Iterator[tuple[Tensor, ...]] = field(default_factory=lambda: iter(()), init=False)

    def batch(self, step: int, part: int) -> DrawnImages:
        """Of any step and part; each costs the least after the one before it."""
        if self._next != (step, part):
            first = step * self.updates * self.share.parts + part
            rows = _rows_from(len(self.data), self.share, self.seed, first)
            self._arriving = self.data.read(rows, self.device)
        self._next = self._after(step, part)
        update, place = divmod(part, self.share.parts)
        places = self.share.places(place)
        rng = ImageRandom(self.seed, step, torch.from_numpy(places).to(self.device), update)
        ImageDropout.rng = rng
        seed_torch(derived_seed(self.seed, OTHERS, step, update, int(places[0])))
        return self.data.draw(next(self._arriving), rng, flip=self.flip)

    def _after(self, step: int, part: int) -> tuple[int, int]:
        last = part + 1 == self.updates * self.share.parts
        return (step + 1, 0) if last else (step, part + 1)


def even_batches(
    data: Images,
    config: TrainingConfig,
    processes: "PartialState",
    *,
    flip: bool,
    updates: int = 1,
) -> ImageBatches:
    """This process's; UserError for a batch that does not divide over all processes and parts."""
    require_even_batch(config.batch, processes.num_processes, config.accumulation)
    share = Share(
        config.batch, config.accumulation, processes.process_index, processes.num_processes
    )
    return ImageBatches(data, share, config.seed, flip, processes.device, updates)


def _rows_from(images: int, share: Share, seed: int, first: int) -> Iterator[np.ndarray]:
    """Of each part from number `first` on: rows of the order that all processes share.

    Apart from ImageBatches, which would otherwise hold itself, and the processes that decode for
    it, through what they read.
    """
    visits = Visits.once(images)
    for number in count(first):
        rows, _ = batch_rows(visits, share.batch, seed, number // share.parts)
        yield rows[share.places(number % share.parts)]


def to_signal(images: Tensor) -> Tensor:
    """uint8 [0, 255] => float32 [-1, 1]; latents, which are floats, stay as they are."""
    return images if images.is_floating_point() else images.float() / 127.5 - 1
