"""What a denoising network makes while it is trained: a row of images a class."""

from collections.abc import Sequence

import numpy as np

from generation.diffusion.sampler_config import SamplerConfig
from generation.generator import Generator, ImageBatch, Screened
from generation.training.data.images import Images

PER_PROMPT = 8  # samples in each row of a grid
MOST_PROMPTS = 16  # rows of a grid: an ImageNet of them would fill no screen and all memory
SAMPLER = SamplerConfig(method="dpm-solver++", steps=12)


def sample_grid(
    generator: Generator,
    known: Sequence[str],
    data: Images,
    resolution: int,
    settings: SamplerConfig = SAMPLER,
) -> np.ndarray:
    """uint8[H,W,3]: a row a prompt, on the parent of its first training image.

    known: what the network is told, the null prompt last. The first MOST_PROMPTS have a row; an
    unconditional network has one.
    """
    count = min(max(1, len(known) - 1), MOST_PROMPTS)
    made = [generator.sample(_row(known[i], i, data, resolution), settings) for i in range(count)]
    rows = [np.hstack(list(m.images if isinstance(m, Screened) else m)) for m in made]
    return np.vstack(rows)


def _row(prompt: str, index: int, data: Images, resolution: int) -> ImageBatch:
    """PER_PROMPT images of one prompt."""
    parents = None
    first = data.parent_of(index)
    if first is not None:
        rgb = first.expand(3, -1, -1).permute(1, 2, 0).numpy()
        parents = np.repeat(rgb[None], PER_PROMPT, axis=0)
    return ImageBatch(
        prompts=[prompt] * PER_PROMPT,
        labels=[index] * PER_PROMPT,
        seeds=list(range(index * PER_PROMPT, (index + 1) * PER_PROMPT)),
        parents=parents,
        resolution=resolution,
    )
