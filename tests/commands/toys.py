"""What somebody adds who follows CONTRIBUTING.md: a kind of generators, and a metric."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from generation.diffusion.sampler_config import SamplerConfig
from generation.generator import ImageBatch
from metrics.features.release_features import FeatureBlock
from metrics.scoring.metric import Metric, StateKind, ValueName, Values


def locate(checkpoint: str) -> Path:
    return Path(checkpoint)


def sha256(folder: Path) -> str:
    return f"{folder.name:0<64}"


def load(folder: Path, compiled: bool) -> "Stripes":  # noqa: ARG001
    return Stripes()


class Stripes:
    """Each image has as many stripes as its label says, in a colour of its seed."""

    def sample(self, batch: ImageBatch, settings: SamplerConfig) -> np.ndarray:  # noqa: ARG002
        side = batch.resolution
        images = np.zeros((len(batch.seeds), side, side, 3), np.uint8)
        for image, label, seed in zip(images, batch.labels, batch.seeds, strict=True):
            colour = np.random.Generator(np.random.Philox(seed)).integers(128, 256, 3)
            image[:, : 2 * (label + 1) : 2] = colour
        return images


@dataclass(frozen=True)
class LengthState:
    """Sum of the lengths of `n` images' features."""

    n: int
    total: float

    def merge(self, other: "LengthState") -> "LengthState":
        return LengthState(self.n + other.n, self.total + other.total)


def length_state(block: FeatureBlock, _: object) -> LengthState:
    lengths = np.linalg.norm(block.features, axis=1)
    return LengthState(len(lengths), float(lengths.sum()))


def length_values(state: LengthState) -> Values:
    return {"length": {"value": state.total / state.n, "n": state.n, "interval": None}}


LENGTHS = StateKind(length_state)
LENGTH = Metric(
    "lengths",
    length_values,
    {"length": ValueName("Length of features", better="higher")},
    against="nothing",
)
