"""A generator that needs no torch: each image is a flat colour that follows from its seed."""

import errno
import os
import time
from pathlib import Path

import numpy as np

from generation.generators import ImageBatch
from generation.sampler_config import SamplerConfig


def locate(checkpoint: str) -> Path:
    return Path(checkpoint)


def sha256(folder: Path) -> str:
    return f"{folder.name:0<64}"


def load(folder: Path, compiled: bool) -> "StandIn":  # noqa: ARG001
    """`folder`'s name is the resolution."""
    return StandIn(int(folder.name))


class StandIn:
    def __init__(self, resolution: int) -> None:
        self._resolution = resolution

    def sample(self, batch: ImageBatch, settings: SamplerConfig) -> np.ndarray:  # noqa: ARG002
        time.sleep(float(os.environ.get("STAND_IN_SECONDS", "0")))
        side = self._resolution
        if os.environ.get("STAND_IN_DISK_FULL") == str(side):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        colours = [
            np.random.Generator(np.random.Philox(seed)).integers(256, size=3)
            for seed in batch.seeds
        ]
        images = np.array(colours, dtype=np.uint8)[:, None, None, :].repeat(side, 1).repeat(side, 2)
        if batch.parents is not None:
            images = (
                images // 2 + batch.parents.mean(axis=(1, 2), keepdims=True).astype(np.uint8) // 2
            )
        return images
