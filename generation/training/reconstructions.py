"""What an autoencoder makes of training images, for people to look at while it is trained."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from generation.networks.pixels import to_rgb
from generation.training.data.images import ImageBatches, to_signal

SHOWN = 16  # images of a grid
ROWS = 2
AT_ONCE = 64


def first_images(data: ImageBatches, count: int) -> list[Tensor]:
    """The first so many, in parts: float[n,C,H,W] in [-1, 1], on the device of the training."""
    rows = np.arange(min(count, len(data.data)))
    parts = (rows[start : start + AT_ONCE] for start in range(0, len(rows), AT_ONCE))
    return [to_signal(read[0]) for read in data.data.read(parts, data.device)]


@torch.no_grad()
def reconstruction_grid(data: ImageBatches, remake: Callable[[Tensor], Tensor]) -> np.ndarray:
    """uint8[H,W,3]: the first training images, each row of them over what `remake` makes of it."""
    x = torch.cat(first_images(data, SHOWN))
    pairs = zip(x.chunk(ROWS), remake(x).chunk(ROWS), strict=True)
    return np.vstack([np.hstack(list(_shown(row))) for pair in pairs for row in pair])


def _shown(images: Tensor) -> np.ndarray:
    found = to_rgb(images.float().clamp(-1, 1).cpu().numpy())
    return found if isinstance(found, np.ndarray) else found.images
