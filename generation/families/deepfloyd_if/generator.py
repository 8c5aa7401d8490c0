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

A stage that `finetune-generator` trained is a checkpoint, too: a folder with the U-Net, the
schedules and `finetuned.json`, which names the model whose frozen text encoder it goes on using. On
a GPU it runs in the precision of its training.
"""

from pathlib import Path

from generation.diffusion.sampler_config import PIXEL_METHODS
from generation.diffusion.schedule import ScheduleConfig
from generation.generator import Generator
from generation.networks.flops import Work
from generation.networks.image_sizes import from_nothing, from_parents, one_size
from generation.pretrained.diffusers_folder import (
    OTHERWISE,
    component_config,
    locate_model,
    model_sha256,
    pipeline_class,
    schedule_at_hand,
    vae_factor,
    weights,
)
from generation.pretrained.finetuned import FINE_TUNED, fine_tuned
from release.errors import UserError
from release.files.commit import sha256_text

NAME = "deepfloyd-if"
TEXT = ("text_encoder", "tokenizer")
UPSCALING = 4  # of IF-II; the upscaler's comes from its VAE
LAYOUTS = {
    "IFPipeline": (*TEXT, "scheduler", "unet"),
    "IFSuperResolutionPipeline": (*TEXT, "scheduler", "unet", "image_noising_scheduler"),
    "StableDiffusionUpscalePipeline": (*TEXT, "scheduler", "unet", "low_res_scheduler", "vae"),
}


def locate(checkpoint: str, otherwise: str = OTHERWISE) -> Path:
    """The model's folder: a local one, else the Hub's cache, else fetched from the Hub.

    otherwise: what else a user can do about one that is out of reach.
    """
    folder = Path(checkpoint)
    if fine_tuned(folder) is None:
        return locate_model(checkpoint, LAYOUTS, otherwise)
    if weights(folder / "unet") is None:
        raise UserError(f"{checkpoint} is not a whole checkpoint: complete weights lack in unet/")
    text_folder(folder)
    return folder


def sha256(folder: Path) -> str:
    """One hash over the networks, tokenizer and schedules that decide the pixels."""
    components = LAYOUTS[pipeline_class(folder)]
    if fine_tuned(folder) is None:
        return model_sha256(folder, components)
    own = model_sha256(folder, [name for name in components if name not in TEXT])
    return sha256_text(f"{own} {model_sha256(text_folder(folder), TEXT)}")


def text_folder(folder: Path) -> Path:
    """Where the text encoder and its tokenizer stand: of a fine-tuned stage with its base.

    They may also be copied into the stage's own folder. UserError if they are out of reach, or not
    those that the stage was trained with.
    """
    told = fine_tuned(folder)
    if told is None:
        return folder
    own = all((folder / name).is_dir() for name in TEXT)
    place = folder if own else _base_of(folder, told.base.checkpoint)
    if model_sha256(place, TEXT) != told.base.text_sha256:
        raise UserError(
            f"{folder} was trained with another text encoder than that of {place}: "
            f"{FINE_TUNED} has its hash"
        )
    return place


def _base_of(folder: Path, base: str) -> Path:
    try:
        return locate_model(base, LAYOUTS)
    except UserError as error:
        raise UserError(f"{folder} goes on using the text encoder of its base: {error}") from None


def trained_resolution(folder: Path) -> int | None:
    """The stage's side in px; None for a folder that holds no stage trained here."""
    told = fine_tuned(folder)
    return told.resolution if told is not None and told.generator == NAME else None


def methods() -> tuple[str, ...]:
    """The sampler methods that it takes."""
    return PIXEL_METHODS


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


def exemplar_channels(_folder: Path) -> int:
    """Of a base stage, which sees colour; the others have parents."""
    return 3


def load(folder: Path, compiled: bool) -> Generator:
    """The stage on the GPU if there is one, else on the CPU; networks load when first used."""
    from generation.families.deepfloyd_if.pipeline import DeepFloydIF
    from generation.networks.placement import best_placement

    told = fine_tuned(folder)
    placement = best_placement(compiled)
    return DeepFloydIF(folder, placement if told is None else placement.on_gpu(told.precision))


def work(checkpoint: str, resolution: int) -> Work | None:
    """What an image of a published model takes."""
    from generation.families.deepfloyd_if.work import stage_work

    return stage_work(checkpoint, resolution)


def schedule(checkpoint: str) -> ScheduleConfig | None:
    """Of a model that is here."""
    return schedule_at_hand(checkpoint)
