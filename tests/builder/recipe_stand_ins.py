"""A tiny untrained checkpoint for every one that a built-in recipe names.

Of the published class, in the published layout and for the published size: latents of the same
side, the same factor from latents to pixels, as many classes. What is left out for its cost, and
decides no size: channels and layers; attention but at the lowest resolution, and in the decoder
of the pipelines of 1024 px (to 16,384 latents at once; in the x4 upscaler's, to 65,536).
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch

from generation.denoisers.checkpoint import save_checkpoint
from generation.families import load_training_recipe, trainable
from generation.families.var.plan import SCALES_256
from generation.pretrained.autoencoder_files import locate_autoencoder
from release.classes.class_list import load_classes
from tests.generation.families.references import latent_diffusion_reference, openai_reference
from tests.generation.families.references.tiny_deepfloyd import (
    save_base,
    save_super_resolution,
    save_upscaler,
)
from tests.models import (
    tiny_biggan,
    tiny_edm2,
    tiny_flows,
    tiny_noisy_classifier,
    tiny_transformers,
)
from tests.models.codes import tiny_mar, tiny_var
from tests.models.codes.tiny_vq_vae import save_tiny
from tests.models.tiny_autoencoders import save_quantiser
from tests.models.tiny_denoisers import save_denoiser
from tests.models.tiny_mean_flow import save_mean_flow
from tests.models.tiny_models import (
    BIGGAN,
    save_biggan,
    save_dit,
    save_flux2_klein,
    save_pixart,
    save_sana,
    save_sd,
    save_sdxl,
)

CLASSES = 1000
CACHED = Path("cache/synthetic-imagenet/models")  # of $XDG_CACHE_HOME = "cache"
Save = Callable[[Path], object]


def save_openai(name: str, halvings: int, file: Path) -> None:
    """An image is 8 px x 2^halvings; attention stands at 8 px alone."""
    shape = {
        "width": 32,
        "mult": (*(1,) * halvings, 2),
        "attends": (*(False,) * halvings, True),
        "classes": CLASSES,
    }
    torch.save(openai_reference.tiny(name, **shape).state_dict(), file)


def save_ldm(file: Path) -> None:
    """64 x 64 latents of 4 x 4 pixels each."""
    unet = {"mult": (1, 1, 1, 2), "attends": (False, False, False, True)}
    parts = latent_diffusion_reference.tiny(
        CLASSES,
        latent_diffusion_reference.TINY | unet,
        latent_diffusion_reference.TINY_VQ | {"mult": (1, 1, 1)},
    )
    torch.save(latent_diffusion_reference.checkpoint(*parts), file)


def save_biggan_of(doublings: int, folder: Path) -> None:
    """An image is 4 px x 2^doublings."""
    layers = [[False, 4, 4], [True, 4, 2], [True, 2, 1], *[[True, 1, 1]] * (doublings - 2)]
    save_biggan(folder, BIGGAN | {"num_classes": CLASSES, "layers": layers})


def save_own(kind: str, recipe: str, network: dict[str, object], folder: Path) -> None:
    """What finetune-generator leaves of a training recipe, with a tiny network."""
    stage = load_training_recipe(recipe).stage
    prompts = tuple(c.prompt for c in load_classes(load_training_recipe(recipe).classes))
    save_denoiser(folder, kind, prompts, stage=stage.model_dump(), network=network)


UNET: dict[str, object] = {"wavelet": 2, "multipliers": [1, 1], "blocks": [1, 1], "attention": []}
UVIT: dict[str, object] = {"wavelet": 3, "multipliers": [1, 1, 1]}
SR3: dict[str, object] = {"base_channels": 4, "attention": [], "multipliers": [1, 1, 1, 1]}
ADM: dict[str, object] = {"attention": [], "multipliers": [1, 1, 1]}
OWN: dict[str, tuple[str, dict[str, object]]] = {  # training recipe: kind, what of it differs
    "fashion-mnist-adm": ("adm", ADM),
    "fashion-mnist-adm-16": ("adm", ADM),
    "fashion-mnist-adm-upsampler": ("adm", ADM),
    "fashion-mnist-cdm-16": ("cdm", ADM),
    "fashion-mnist-cdm-32": ("cdm", ADM),
    "fashion-mnist-iddpm": ("adm", ADM),
    "fashion-mnist-rin": ("rin", {}),
    "fashion-mnist-rin-noise-schedule": ("rin", {}),
    "fashion-mnist-simple-diffusion-unet": ("unet", {}),
    "fashion-mnist-simple-diffusion-uvit": ("uvit", {}),
    "fashion-mnist-sr3": ("sr3", SR3),
    "fashion-mnist-sr3-base": ("sr3-base", SR3),
    "imagenet-cdm-32": ("cdm", ADM),
    "imagenet-cdm-64": ("cdm", ADM | {"multipliers": [1] * 4}),
    "imagenet-cdm-256": ("cdm", ADM | {"multipliers": [1] * 6, "variance": "fixed"}),
    "imagenet-rin-64": ("rin", {"patch": 8}),
    "imagenet-rin-256": ("rin", {"patch": 32}),
    "imagenet-rin-noise-schedule-64": ("rin", {"patch": 8}),
    "imagenet-rin-noise-schedule-256": ("rin", {"patch": 32}),
    "imagenet-simple-diffusion-unet-256": ("unet", UNET),
    "imagenet-simple-diffusion-unet-512": ("unet", UNET),
    "imagenet-simple-diffusion-uvit-256": ("uvit", UVIT),
    "imagenet-sr3-256": ("sr3", SR3 | {"multipliers": [1] * 6}),
    "imagenet-sr3-base-64": ("sr3-base", SR3),
}


def with_autoencoder(stage: dict[str, Any], folder: Path) -> dict[str, Any]:
    """A stage on latents with the facts of its autoencoder, which is left in `folder`."""
    quantiser = save_quantiser(folder / "autoencoder", blocks=3)
    latents = {
        **{"channels": 3, "side": 8, "scaling_factor": 1.0, "shift_factor": 0.0},
        **{"autoencoder": str(quantiser), "sha256": locate_autoencoder(str(quantiser)).sha256},
    }
    return stage | {"latents": latents}


def save_latent_diffusion(folder: Path) -> None:
    """What finetune-generator leaves of fashion-mnist-ldm, its autoencoder beside it."""
    stage = with_autoencoder(load_training_recipe("fashion-mnist-ldm").stage.model_dump(), folder)
    prompts = tuple(c.prompt for c in load_classes("fashion-mnist"))
    network: dict[str, object] = {"attention": [4]}
    save_denoiser(folder, "ldm", prompts, stage=stage, network=network)


def save_classifier(folder: Path) -> None:
    """What finetune-generator leaves of fashion-mnist-adm-classifier."""
    tiny_noisy_classifier.save_tiny(
        folder,
        tuple(c.prompt for c in load_classes("fashion-mnist")),
        stage=load_training_recipe("fashion-mnist-adm-classifier").stage.model_dump(),
    )


def save_vq_vae_2(folder: Path) -> None:
    """What finetune-generator leaves of fashion-mnist-vq-vae-2."""
    prompts = tuple(c.prompt for c in load_classes("fashion-mnist"))
    save_tiny(folder, prompts, resolution=32)


def save_transformer(recipe: str, folder: Path) -> None:
    """What finetune-generator leaves of a training recipe of DiT or SiT, with a tiny network."""
    of = load_training_recipe(recipe)
    prompts = tuple(c.prompt for c in load_classes(of.classes))
    stage, patch = of.stage.model_dump(), 4
    if stage["latents"]:
        stage, patch = with_autoencoder(stage, folder), 2
    changes = {"stage": stage, "network": {"patch": patch}}
    network = tiny_transformers.tiny_denoiser(of.generator, prompts, **changes)
    save_checkpoint(trainable(of.generator).family, network, folder)


def save_edm2_of(channels: int, classes: int, seed: int, file: Path) -> None:
    """Of the published depth and side; attention at 8 px alone."""
    plan = tiny_edm2.tiny_plan(64, channels, classes, widths=(8, 8, 8, 64), attends=(8,))
    tiny_edm2.save_edm2(file, plan, seed, blocks=4)


# By the name in the recipe: what saves the model there, in the folder the build runs in.
CHECKPOINTS: dict[str, Save] = {
    "64x64_diffusion.pt": partial(save_openai, "adm-64", 3),
    "256x256_diffusion.pt": partial(save_openai, "adm-256", 5),
    "64_256_upsampler.pt": partial(save_openai, "adm-upsampler", 5),
    "imagenet64_cond_270M_250K.pt": partial(save_openai, "iddpm", 3),
    "cin256-v2.ckpt": save_ldm,
    "SiT-XL-2-256x256.pt": partial(
        tiny_transformers.save_published, side=32, classes=CLASSES, blocks=4
    ),
    "REPA-SiT-XL-2-256x256.pt": partial(
        tiny_transformers.save_repa, side=32, classes=CLASSES, blocks=4
    ),
    "edm2-img64-l-1073741-0.040.safetensors": partial(save_edm2_of, 3, CLASSES, 0),
    "edm2-img64-s-1073741-0.045.safetensors": partial(save_edm2_of, 3, CLASSES, 1),
    "edm2-img64-xs-0134217-0.110.safetensors": partial(save_edm2_of, 3, CLASSES, 2),
    "edm2-img512-xxl-0939524-0.015.safetensors": partial(save_edm2_of, 4, CLASSES, 0),
    "edm2-img512-xs-uncond-2147483-0.015.safetensors": partial(save_edm2_of, 4, 0, 1),
    "edm2-img512-xxl-0939524-0.075.safetensors": partial(save_edm2_of, 4, CLASSES, 2),
    "edm2-img512-m-0268435-0.155.safetensors": partial(save_edm2_of, 4, CLASSES, 3),
    "var_d30.pth": partial(
        tiny_var.save_var, plan=tiny_var.tiny_plan(SCALES_256, CLASSES), levels=5
    ),
    **{
        f"mar_{size}.pth": partial(tiny_mar.save_mar, classes=CLASSES, grid=16, levels=5)
        for size in ("base", "large", "huge")
    },
    "iMF-XL-2.pth": partial(save_mean_flow, classes=CLASSES, blocks=4),
    "lightningdit-xl-imagenet256-800ep.pt": partial(
        tiny_flows.save_lightning, classes=CLASSES, grid=16, levels=5
    ),
    "REPA-E-SiT-XL-1-256x256.pt": partial(
        tiny_flows.save_repa_e, classes=CLASSES, side=16, blocks=5
    ),
    "REPA-E-SiT-XL-1-INVAE-256x256.pt": partial(
        tiny_flows.save_repa_e_end_to_end, classes=CLASSES, side=16, levels=5
    ),
    "JiT-H-16.pth": partial(tiny_flows.save_jit, classes=CLASSES, grid=16, patch=16),
    "JiT-H-32.pth": partial(tiny_flows.save_jit, classes=CLASSES, grid=16, patch=32),
    "RAE-DiTDH-S-14ep-256x256.pt": partial(tiny_flows.save_rae_guide, classes=CLASSES, side=16),
    "RAE-DiTDH-XL-256x256.pt": partial(tiny_flows.save_rae, classes=CLASSES, side=16, patch=16),
    "biggan-deep-128": partial(save_biggan_of, 5),
    "biggan-deep-256": partial(save_biggan_of, 6),
    "facebook/DiT-XL-2-256": partial(save_dit, side=32, classes=CLASSES, factor_blocks=4),
    "facebook/DiT-XL-2-512": partial(save_dit, side=64, classes=CLASSES, factor_blocks=4),
    "DeepFloyd/IF-I-XL-v1.0": partial(save_base, side=64),
    "DeepFloyd/IF-II-L-v1.0": partial(save_super_resolution, side=256, halvings=3),
    "stabilityai/stable-diffusion-x4-upscaler": partial(
        save_upscaler, side=128, halvings=3, length=77, attends=False
    ),
    "black-forest-labs/FLUX.2-klein-4B": partial(save_flux2_klein, factor_blocks=4, attends=False),
    "black-forest-labs/FLUX.2-klein-base-4B": partial(
        save_flux2_klein, factor_blocks=4, attends=False
    ),
    "PixArt-alpha/PixArt-XL-2-256x256": partial(save_pixart, side=32, factor_blocks=4),
    "PixArt-alpha/PixArt-XL-2-512x512": partial(save_pixart, side=64, factor_blocks=4),
    "PixArt-alpha/PixArt-XL-2-1024-MS": partial(save_pixart, side=128, factor_blocks=4),
    "Efficient-Large-Model/Sana_600M_512px_diffusers": partial(save_sana, side=16, factor_blocks=6),
    "Efficient-Large-Model/Sana_1600M_1024px_BF16_diffusers": partial(
        save_sana, side=32, factor_blocks=6
    ),
    "hbXNov/ucla-mint-finetune-sd-im1k": partial(save_sd, side=64, factor_blocks=4),
    "stabilityai/stable-diffusion-xl-base-1.0": partial(
        save_sdxl, side=128, factor_blocks=4, halvings=2, length=77
    ),
    **{
        f"runs/{recipe}/checkpoint": partial(save_transformer, recipe)
        for recipe in ("fashion-mnist-dit", "fashion-mnist-sit")
    },
    "runs/fashion-mnist-adm-classifier/checkpoint": save_classifier,
    "runs/fashion-mnist-ldm/checkpoint": save_latent_diffusion,
    "runs/fashion-mnist-biggan/checkpoint": partial(
        tiny_biggan.save_tiny, classes=10, resolution=32
    ),
    "runs/fashion-mnist-vq-vae-2/checkpoint": save_vq_vae_2,
    **{
        f"runs/{recipe}/checkpoint": partial(save_own, kind, recipe, network)
        for recipe, (kind, network) in OWN.items()
    },
}


def save_stand_in(checkpoint: str, folder: Path) -> None:
    """The checkpoint in `folder`, the one that ships with the project as it is; KeyError if new."""
    if checkpoint.startswith("builtin:"):
        return
    place = folder / (CACHED if checkpoint.startswith("biggan-") else "") / checkpoint
    if not place.exists():
        place.parent.mkdir(parents=True, exist_ok=True)
        CHECKPOINTS[checkpoint](place)
