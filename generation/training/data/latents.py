"""Latents as training data: moments are read, their latent is drawn where a step runs."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from generation.diffusion.random_numbers import ImageRandom
from generation.pretrained.autoencoder import sampled
from generation.training.data.images import DrawnImages
from generation.training.data.loaders import arriving, decoded_ahead, decoding_processes
from release.errors import UserError
from release.layout.latents import Latents
from release.streaming.encoded import EncodedImages

READ_TOGETHER = 1024  # images whose moments are read at once into memory


@dataclass(frozen=True)
class LatentDraw:
    """Draws latents of what LatentImages.read gave, as networks see them.

    An image's posterior is sampled anew each time that it is seen.
    """

    latents: Latents

    def __call__(self, read: tuple[Tensor, ...], rng: ImageRandom, *, flip: bool) -> DrawnImages:
        """images: float32[N,C,h,w]. flip: of half of them the mirrored image's latents."""
        moments, conditions = read  # moments [N,K,P,h,w]
        about = self.latents
        chosen = moments[:, 0]
        if flip:
            mirrored = (rng.uniform() < 0.5)[:, None, None, None]
            chosen = torch.where(mirrored, moments[:, 1], chosen)
        noise = rng.normal(about.channels, about.side, about.side)
        x = sampled(chosen, noise, about.scaling_factor, about.shift_factor)
        return DrawnImages(x, None, conditions, rng)


@dataclass(frozen=True)
class LatentImages:
    """A set of latents as a stage learns from it: an Images of generation/training/data/images.py.

    images: where each image's moments stand. told: int64[classes], what a network is told of a
    class. resident: all moments, [N,K,P,h,w] of the set's dtype, where they are in memory; on the
    device, once they are read. loaders: processes that read them otherwise.
    """

    latents: Latents
    images: EncodedImages
    told: Tensor
    resident: Tensor | None = None
    loaders: int | None = None

    def __len__(self) -> int:
        return len(self.images)

    @property
    def draw(self) -> LatentDraw:
        return LatentDraw(self.latents)

    def read(
        self, batches: Iterator[np.ndarray], device: torch.device
    ) -> Iterator[tuple[Tensor, ...]]:
        if self.resident is not None:
            yield from self._chosen(self.resident.to(device), batches)
            return
        keys = (rows.tolist() for rows in batches)
        processes = decoding_processes(self.loaders)
        read = decoded_ahead(self.decode, keys, device, processes, (__name__,))

        def placed(batch: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            return tuple(tensor.to(device, non_blocking=True) for tensor in batch)

        yield from arriving(read, placed, device)

    def _chosen(
        self, resident: Tensor, batches: Iterator[np.ndarray]
    ) -> Iterator[tuple[Tensor, ...]]:
        labels = torch.tensor(self.images.labels)  # a copy: what is mapped cannot be written
        conditions = self.told[labels].to(resident.device)
        for rows in batches:
            chosen = torch.from_numpy(rows).to(resident.device)
            yield resident[chosen], conditions[chosen]

    def decode(self, rows: Sequence[int]) -> tuple[Tensor, ...]:
        """As `read` gives them, here; UserError for other moments than the set is of."""
        conditions = self.told[torch.from_numpy(self.images.labels[rows])]
        return torch.from_numpy(self.moments(rows)), conditions

    def moments(self, rows: Sequence[int]) -> np.ndarray:
        """[n,K,P,h,w] of the set's dtype."""
        found = np.empty((len(rows), *self.latents.shape), self.latents.dtype)
        for place, (row, content) in enumerate(zip(rows, self.images.read(rows), strict=True)):
            try:
                found[place] = self.latents.decoded(content)
            except UserError as error:
                raise UserError(f"{self.images.named(row)}: {error}") from None
        return found

    def in_memory(self) -> "LatentImages":
        """The same, all of it read."""
        whole = np.empty((len(self), *self.latents.shape), self.latents.dtype)
        for start in range(0, len(self), READ_TOGETHER):
            rows = range(start, min(start + READ_TOGETHER, len(self)))
            whole[start : rows.stop] = self.moments(rows)
        resident = torch.from_numpy(whole)
        return LatentImages(self.latents, self.images, self.told, resident, self.loaders)

    def parent_of(self, _condition: int) -> Tensor | None:
        """None: no stage of latents enlarges another."""
        return None
