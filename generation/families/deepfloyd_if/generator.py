"""DeepFloyd IF's cascade and Stable Diffusion's x4 upscaler, one stage at a time.

A checkpoint is a model on the Hub or a folder in diffusers' layout; its `model_index.json` says
which of the three it is: text-to-image (IF-I, 64 px), super-resolution (IF-II, 64 to 256 px) or
the latent upscaler (256 to 1024 px). The networks are diffusers'; the sampling loop, the noise and
the guidance are this project's. Where that differs from diffusers' pipelines:

- Noise comes from each image's own seed, so an image does not depend on its neighbours.
- IF's networks predict a variance beside epsilon. It is dropped: the recipe's `gamma` sets the
  variance of `ddpm`, as Azizi et al. 2023 do.
- Dynamic thresholding has no upper bound for the scale (IF ships ratio 0.95, at most 1.5).
- `noise_augmentation` is a share of the T steps of the schedule that noises the parent image; 0
  is that schedule's first step, the cleanest the network has seen.
- Not applied: the safety checker (it blackens what it flags) and DeepFloyd's visible watermark.
  Both belong to diffusers' pipelines, not to the networks.

Memory: prompts are encoded once and cached on disk, and the text encoder is gone before the U-Net
is loaded. bfloat16 on a GPU (the upscaler's decoder in float32), float32 on a CPU.
"""

from pathlib import Path

from generation.generator import Generator
from generation.networks.image_sizes import from_nothing, from_parents, one_size
from generation.pretrained.diffusers_folder import (
    component_config,
    locate_model,
    model_sha256,
    pipeline_class,
    vae_factor,
)

TEXT = ("text_encoder", "tokenizer")
UPSCALING = 4  # of IF-II; the upscaler's comes from its VAE
LAYOUTS = {
    "IFPipeline": (*TEXT, "scheduler", "unet"),
    "IFSuperResolutionPipeline": (*TEXT, "scheduler", "unet", "image_noising_scheduler"),
    "StableDiffusionUpscalePipeline": (*TEXT, "scheduler", "unet", "low_res_scheduler", "vae"),
}


def locate(checkpoint: str) -> Path:
    """The model's folder: a local one, else the Hub's cache, else fetched from the Hub."""
    return locate_model(checkpoint, LAYOUTS)


def sha256(folder: Path) -> str:
    """One hash over the networks, tokenizer and schedules that decide the pixels."""
    return model_sha256(folder, LAYOUTS[pipeline_class(folder)])


def size_problem(folder: Path | None, resolution: int, parent: int | None) -> str | None:
    """What keeps the stage from making `resolution` px images from `parent` px ones."""
    if folder is None:  # the index says which of the three it is
        return None
    kind = pipeline_class(folder)
    if kind == "StableDiffusionUpscalePipeline":
        return from_parents(vae_factor(folder), resolution, parent)
    side = one_size(component_config(folder, "unet")["sample_size"], resolution)
    if kind == "IFPipeline":
        return from_nothing(parent) or side
    return side or from_parents(UPSCALING, resolution, parent)


def load(folder: Path, compiled: bool) -> Generator:
    """The stage on the GPU if there is one, else on the CPU; networks load when first used."""
    from generation.families.deepfloyd_if.pipeline import DeepFloydIF
    from generation.networks.placement import best_placement

    return DeepFloydIF(folder, best_placement(compiled))
