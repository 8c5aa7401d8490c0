"""What adapters to pretrained networks share: loading components, decoding latents, bytes."""

import gc
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from generation.diffusion.sampler_config import SamplerConfig
from generation.generator import ImageBatch, Screened, refusing
from generation.pretrained.diffusers_folder import weight_files
from release.errors import UserError


def load_component(model_class: Any, component: Path, dtype: torch.dtype) -> Any:
    """A diffusers or transformers model, for inference, from safetensors or weights alone."""
    from diffusers.utils import logging

    logging.disable_progress_bar()  # a bar for each sharded network runs into the command's own
    variant, files = weight_files(component)
    precision = "dtype" if model_class.__module__.startswith("transformers") else "torch_dtype"
    model = model_class.from_pretrained(
        component,
        variant=variant,
        use_safetensors=files[-1].suffix == ".safetensors",
        **{precision: dtype},
    )
    return model.eval().requires_grad_(False)


def decode_latents(vae: Any, latents: Tensor) -> Tensor:
    """float32[N,3,H,W] from latents [N,C,h,w], one at a time: at 1024 px memory is the limit."""
    scaled = (latents / vae.config.scaling_factor).float()
    return torch.cat([vae.decode(one, return_dict=False)[0] for one in scaled.split(1)])


def require_first_stage(batch: ImageBatch, source: object) -> None:
    """UserError if the batch has parents, for a model that makes images from labels alone."""
    if batch.parents is not None:
        raise UserError(f"{source} makes images from labels: it must be a first stage")


def require_labels(batch: ImageBatch, classes: int, source: object) -> None:
    """UserError if a label is none of the model's `classes`."""
    if max(batch.labels) >= classes:
        raise UserError(
            f"label {max(batch.labels)} is not among the {classes} classes of {source}: "
            "use the class list it was trained on"
        )


def require_of_latents(settings: SamplerConfig, source: object) -> None:
    """UserError for what a sampler of latents cannot do: clip them, or leave noise in them."""
    if settings.threshold != "none":
        raise UserError(
            f"{source} samples latents, which have no bounds to clip to: its sampler needs "
            'threshold = "none"'
        )
    if settings.stop:
        raise UserError(f"{source} decodes latents, which must be clean: leave stop out")


def free_memory() -> None:
    """Give back what dropped networks held."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def to_uint8(images: Tensor) -> np.ndarray | Screened:
    """float[N,3,H,W], or [N,1,H,W] in grey, in [-1, 1] => uint8[N,H,W,3], rounded to the nearest
    level.

    Images with NaN or infinity are refused.
    """
    finite = images.isfinite().flatten(1).all(dim=1).cpu().numpy()
    levels = ((images.float() + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
    levels = levels.expand(-1, 3, -1, -1)
    return refusing(levels.permute(0, 2, 3, 1).contiguous().cpu().numpy(), finite)
