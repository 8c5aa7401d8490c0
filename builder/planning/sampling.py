"""A batch of a stage: its images are of the stage's size, or the user learns why not."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeGuard

import numpy as np

from builder.planning.recipe import StageRecipe
from generation.diffusion.sampler_config import SamplerConfig
from generation.families import generator_source, schedule_of
from generation.generator import DecodingBeside, Generator, ImageBatch, Screened
from release.errors import UserError


def require_sizes(chain: Sequence[StageRecipe], folders: Sequence[Path | None]) -> None:
    """UserError if a stage's model cannot make its images from those of the stage before.

    folders: of the models, None for one that is not at hand. No weights are read.
    """
    parent: int | None = None
    for stage, folder in zip(chain, folders, strict=True):
        check = getattr(generator_source(stage.generator), "size_problem", None)
        if check is not None and (problem := check(folder, stage.resolution, parent)):
            raise _misfit(stage, problem, parent)
        parent = stage.resolution


def require_methods(chain: Sequence[StageRecipe]) -> None:
    """UserError for a sampler method that the stage's generator does not take.

    A generator that does not say its methods tells when it samples.
    """
    for stage in chain:
        say = getattr(generator_source(stage.generator), "methods", None)
        if say is not None and stage.sampler.method not in say():
            raise UserError(
                f"stage {stage.resolution}: generator {stage.generator} takes no sampler method "
                f"{stage.sampler.method!r}, only: {', '.join(say())}"
            )


def require_intervals(chain: Sequence[StageRecipe]) -> None:
    """UserError for guidance at some of a noise schedule's steps by a generator that knows none."""
    for stage in chain:
        if stage.sampler.interval_of_steps:
            schedule_of(stage.generator, stage.checkpoint)


def sample_batch(
    generator: Generator, batch: ImageBatch, stage: StageRecipe, settings: SamplerConfig
) -> Screened:
    """uint8[N,R,R,3], R the stage's resolution; UserError for images of another size."""
    return _of_size(generator.sample(batch, settings), batch, stage)


def decodes_beside(generator: Generator) -> TypeGuard[DecodingBeside]:
    """Whether it decodes a batch while it samples the next."""
    return bool(getattr(generator, "decodes_beside", False))


def begin_batch(
    generator: Generator, batch: ImageBatch, stage: StageRecipe, settings: SamplerConfig
) -> Callable[[], Screened]:
    """Samples now; what it returns gives what `sample_batch` does, and waits until it is decoded.

    Of a generator that decodes nothing beside sampling it is all done already.
    """
    if not decodes_beside(generator):
        sampled = sample_batch(generator, batch, stage, settings)
        return lambda: sampled
    begun = generator.begin(batch, settings)
    return lambda: _of_size(begun.result(), batch, stage)


def _of_size(sampled: np.ndarray | Screened, batch: ImageBatch, stage: StageRecipe) -> Screened:
    if not isinstance(sampled, Screened):
        sampled = Screened(sampled, [None] * len(batch.seeds))
    side = stage.resolution
    if sampled.images.shape != (len(batch.seeds), side, side, 3):
        parent = None if batch.parents is None else batch.parents.shape[1]
        raise _misfit(stage, f"makes images of {sampled.images.shape[1]} px", parent)
    return sampled


def _misfit(stage: StageRecipe, problem: str, parent: int | None) -> UserError:
    follows = "" if parent is None else f" and follows one of {parent} px"
    return UserError(
        f"checkpoint {stage.checkpoint} {problem}, its stage in the recipe has resolution "
        f"{stage.resolution}{follows}"
    )
