"""DeepFloyd IF's cascade and Stable Diffusion's x4 upscaler, one stage at a time.

A checkpoint is a model on the Hub or a folder in diffusers' layout; its `model_index.json` says
which of the three it is: text-to-image (IF-I, 64 px), super-resolution (IF-II, 64 to 256 px) or
the latent upscaler (256 to 1024 px). The networks are diffusers'; the sampling loop, the noise and
the guidance are this project's. What differs from diffusers' pipelines:

- Noise comes from each image's own seed, so an image does not depend on its neighbours.
- IF's networks predict a variance beside epsilon. It is dropped: the recipe's `gamma` sets the
  variance of `ddpm`, as Azizi et al. 2023 do.
- Dynamic thresholding has no upper bound for the scale (IF ships ratio 0.95, at most 1.5).
- `noise_augmentation` is a share of the T steps of the schedule that noises the parent; 0 is that
  schedule's first step, the cleanest the network has seen.
- Not applied: the safety checker (it blackens what it flags) and DeepFloyd's visible watermark.
  Both belong to diffusers' pipelines, not to the networks.

Memory: prompts are encoded once, cached on disk, and the text encoder is gone before the U-Net is
loaded; bfloat16 on a GPU (the upscaler's decoder in float32), float32 on a CPU.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from generation.diffusers_folder import (
    INDEX,
    locate_model,
    model_sha256,
    pipeline_class,
)
from generation.errors import UserError
from generation.generators import Generator, ImageBatch
from generation.sampler_config import SamplerConfig

if TYPE_CHECKING:
    from generation.generators.deepfloyd_if_network import DeepFloydIF
