"""Pixels as networks of our own see and make them."""

from typing import TYPE_CHECKING

import numpy as np

from generation.generator import ImageBatch, Screened, as_levels
from generation.networks.timm_classifier import to_channels
from release.errors import UserError
from release.images.colour import images_in_colour

if TYPE_CHECKING:
    import torch

    from generation.diffusion.sampler import Start


def parents_of(
    batch: ImageBatch, side: int | None, channels: int, device: "torch.device"
) -> "torch.Tensor | None":
    """float32[N,C,h,w] in [-1, 1] on `device`; None for a base stage, whose `side` is None.

    Raises UserError if the batch has no parents and the stage needs them, or none in colour.
    """
    if side is None:
        if batch.parents is not None:
            raise UserError("a base checkpoint cannot follow another stage: it takes no parents")
        return None
    if batch.parents is None or batch.parents.shape[1] != side:
        given = "none" if batch.parents is None else f"{batch.parents.shape[1]} px"
        raise UserError(f"the stage needs parents of {side} px, got {given}")
    coloured = images_in_colour(batch.parents) if channels == 1 else 0
    if coloured:
        raise UserError(
            f"{coloured} of {len(batch.parents)} parents are in colour, and the stage's "
            "checkpoint is grey (channels = 1): their colour would be lost"
        )
    return _as_seen(batch.parents, channels, device)


def start_of(batch: ImageBatch, channels: int, device: "torch.device") -> "Start | None":
    """What sampling begins from on `device`, the batch's exemplars; None where it has none."""
    from generation.diffusion.sampler import Start

    if batch.exemplars is None:
        return None
    images = _as_seen(batch.exemplars.images, channels, device)
    return Start(images, batch.exemplars.strength)


def _as_seen(images: np.ndarray, channels: int, device: "torch.device") -> "torch.Tensor":
    """float32[N,C,H,W] in [-1, 1] of uint8[N,H,W,3]."""
    import torch

    seen = to_channels(images, channels).astype(np.float32) / 127.5 - 1
    return torch.from_numpy(seen).to(device)


def to_rgb(images: np.ndarray) -> np.ndarray | Screened:
    """float32[N,C,H,W] in [-1, 1] => uint8[N,H,W,3], rounded to the nearest level."""
    channels = images.transpose(0, 2, 3, 1)
    rgb = np.repeat(channels, 3, axis=3) if channels.shape[3] == 1 else channels
    return as_levels(np.ascontiguousarray((rgb + 1) * 127.5))
