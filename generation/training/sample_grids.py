"""What a denoising network makes now, for people to look at while it is trained."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from generation.diffusion.noise import ahead_of_need, image_noise
from generation.diffusion.sampler import Denoiser, sample
from generation.diffusion.sampler_config import Prediction, SamplerConfig
from generation.diffusion.schedule import NoiseSchedule
from generation.generator import Screened
from generation.pretrained.components import to_uint8
from generation.training.data.images import Images, to_signal

PER_ROW = 4  # samples of one condition by a first stage
MOST_ROWS = 8  # a thousand classes would fill no screen
SAMPLER = SamplerConfig(method="dpm-solver++", steps=12)


def row_seeds(condition: int, *, follows: bool) -> Sequence[int]:
    """Of a row's samples; of a parent one is enough, since they differ little."""
    return range(condition * PER_ROW, condition * PER_ROW + (1 if follows else PER_ROW))


def first_parent(data: Images, condition: int) -> Tensor | None:
    """float32[1,3,h,w] in [-1, 1]: that of a condition's first image; None of a first stage."""
    parent = data.parent_of(condition)
    return None if parent is None else to_signal(parent[None])


@torch.no_grad()
def sampled_row(
    denoise: Denoiser,
    schedule: NoiseSchedule,
    prediction: Prediction,
    seeds: Sequence[int],
    side: int,
    device: torch.device,
    parent: Tensor | None,
) -> np.ndarray:
    """uint8[side,W,3]: a sample for each seed, side by side, after their enlarged `parent`."""
    with ahead_of_need(image_noise(seeds, (3, side, side))) as noise:
        x0 = sample(
            denoise, schedule, prediction, SAMPLER, lambda: torch.from_numpy(noise()).to(device)
        )
    made = to_uint8(x0 if parent is None else torch.cat([parent, x0]))
    return np.hstack(list(made.images if isinstance(made, Screened) else made))
