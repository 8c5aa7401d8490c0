"""What a generator is asked for, and what it gives: the interface of all families."""

from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from generation.diffusion.sampler_config import SamplerConfig


@dataclass(frozen=True)
class Exemplars:
    """Real images that sampling begins from, noised (`Start` in generation/diffusion/sampler.py).

    images uint8[N,R,R,3], R the stage's side. strength: share of the steps that is made, in (0, 1].
    """

    images: np.ndarray
    strength: float


@dataclass(frozen=True)
class ImageBatch:
    """What a generator is asked for: N images, each decided by its own row alone.

    prompts str[N]; labels int64[N]; seeds int[N], 53 bits; parents uint8[N,h,w,3], the images of
    the stage before, None for a first stage. N is the same for every batch of a stage. resolution:
    the stage's side in px, for models that make several; the others make their own. exemplars:
    what each begins from, for an ExemplarSource; None: noise alone.
    """

    prompts: Sequence[str]
    labels: Sequence[int]
    seeds: Sequence[int]
    parents: np.ndarray | None
    resolution: int
    exemplars: Exemplars | None = None


@dataclass(frozen=True)
class Screened:
    """Images of a pipeline that refuses some itself, uint8[N,H,W,3].

    reasons: for each image why it is refused (its pixels are then of no use), None if it is not.
    """

    images: np.ndarray
    reasons: Sequence[str | None]


NOT_FINITE = "its pixels are not finite numbers"


def as_levels(images: np.ndarray) -> np.ndarray | Screened:
    """float[N,H,W,C], about in [0, 255], rounded to uint8; images with NaN or infinity refused."""
    finite = np.isfinite(images).all(axis=(1, 2, 3))
    levels = np.clip(np.rint(np.nan_to_num(images, copy=False)), 0, 255).astype(np.uint8)
    return refusing(levels, finite)


def refusing(levels: np.ndarray, finite: np.ndarray) -> np.ndarray | Screened:
    """uint8[N,H,W,C] as a generator gives them: those whose numbers were not finite are refused."""
    if finite.all():
        return levels
    return Screened(levels, [None if whole else NOT_FINITE for whole in finite])


class Generator(Protocol):
    """One stage's model, loaded. Returns uint8[N,H,W,3], or `Screened` if it may refuse images."""

    def sample(self, batch: ImageBatch, settings: SamplerConfig) -> np.ndarray | Screened: ...


class DecodingBeside(Generator, Protocol):
    """A generator that, where `decodes_beside`, decodes a batch while it samples the next.

    begin: samples what will be the images of the batch, and hands them out as soon as they are
    decoded; what decoding raises, the future raises.
    """

    @property
    def decodes_beside(self) -> bool: ...
    def begin(
        self, batch: ImageBatch, settings: SamplerConfig
    ) -> Future[np.ndarray | Screened]: ...


class GeneratorSource(Protocol):
    """A generator's module: finds the model's files, hashes them, loads them.

    `locate` raises UserError, in one line that says what to do, if the model is out of reach.
    `compiled`: run the networks through torch.compile, whose pixels differ a little. A module may
    also have what follows; `folder` is what `locate` gave.

    unconditional(folder) -> bool: whether the model knows of no classes.
    known_prompts(folder) -> tuple[str, ...] | None: the prompts that it learned, where it knows no
        others; None for a model that takes any.
    methods() -> tuple[str, ...]: the sampler methods that it takes.
    size_problem(folder, resolution, parent) -> str | None: why no image of `resolution` px comes
        from one of `parent` px (None: a first stage), in words that follow the checkpoint's name.
        `folder` is None for a model that is not at hand.
    trained_resolution(folder) -> int | None: of a checkpoint that `finetune-generator` wrote, the
        stage's resolution in px; None for a folder that holds none of this generator.
    work(checkpoint, resolution) -> Work | None: what an image takes, counted without the weights
        (generation/networks/flops.py); None for a checkpoint that it does not know.
    SHAPES_VARY = True: its networks see another shape at every call; no build compiles them by
        itself.
    schedule(checkpoint) -> ScheduleConfig | None: the noise schedule by which the sampler's
        `guidance_interval` says where it guides; None for a checkpoint that is not at hand. Without
        it such an interval is refused.

    One whose networks may be guided by a weaker one is a GuidedSource, one whose networks may run
    in fp8 an Fp8Source, one whose sampling may begin from images an ExemplarSource.
    """

    def locate(self, checkpoint: str) -> Path: ...
    def sha256(self, folder: Path) -> str: ...
    def load(self, folder: Path, compiled: bool) -> Generator: ...


class GuidedSource(GeneratorSource, Protocol):
    """A module whose networks may be guided by another one of its own (autoguidance).

    guide_problem: why the network in `guide` cannot guide the one in `folder`, in words that follow
    the guide's name; None where it can, and where only their weights would tell.
    """

    def guide_problem(self, folder: Path, guide: Path) -> str | None: ...
    def load_guided(self, folder: Path, guide: Path, compiled: bool) -> Generator: ...


class ExemplarSource(GeneratorSource, Protocol):
    """A module whose sampling may begin from images, the `exemplars` of a batch.

    exemplar_channels: of the images that the network in `folder` makes, 1 grey, 3 colour.
    """

    def exemplar_channels(self, folder: Path) -> int: ...


class Fp8Source(GeneratorSource, Protocol):
    """A module whose networks may run in fp8 (generation/networks/fp8/running.py)."""

    def load_fp8(self, folder: Path, compiled: bool) -> Generator: ...
