"""The pixel U-Net stages that `finetune-generator` trains, base and super-resolution."""

import json
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from generation.diffusion.noise import ahead_of_need, image_noise
from generation.diffusion.sampler_config import SamplerConfig
from generation.families.image_sizes import from_nothing, from_side, one_size
from generation.families.pixel_unet.checkpoint_files import (
    STAGE_FILE,
    checkpoint_sha256,
    resolve_checkpoint,
)
from generation.generator import Generator, ImageBatch, Screened, as_levels
from generation.networks.timm_classifier import to_channels
from release.errors import UserError
from release.images.colour import images_in_colour

if TYPE_CHECKING:
    import torch

    from generation.families.pixel_unet.network import PixelUNet, StageConfig


def locate(checkpoint: str) -> Path:
    """The checkpoint's folder."""
    return resolve_checkpoint(checkpoint)


def sha256(folder: Path) -> str:
    """One hash over the files that decide the pixels."""
    return checkpoint_sha256(folder)


def unconditional(folder: Path) -> bool:
    """Whether the network knows of no classes, so that a label says nothing of its image."""
    return bool(_stage(folder).get("conditioning") == "none")


def _stage(folder: Path) -> dict[str, Any]:
    """The checkpoint's description; UserError if it is none."""
    with suppress(ValueError):
        content = json.loads((folder / STAGE_FILE).read_bytes())
        if isinstance(content, dict) and "resolution" in content:
            return content
    raise UserError(f"{folder / STAGE_FILE} is damaged: it is no description of a stage")


def trained_resolution(folder: Path) -> int | None:
    """The stage's side in px; None for a folder that holds no such stage."""
    if not (folder / STAGE_FILE).is_file():
        return None
    locate(str(folder))
    try:
        return int(json.loads((folder / STAGE_FILE).read_bytes())["resolution"])
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{folder / STAGE_FILE} cannot be read: {error}") from None


def size_problem(folder: Path | None, resolution: int, parent: int | None) -> str | None:
    """What keeps the stage from making `resolution` px images from `parent` px ones."""
    if folder is None:
        return None
    stage = _stage(folder)
    low = stage.get("low_resolution")
    follows = from_nothing(parent) if low is None else from_side(low, parent)
    return one_size(stage["resolution"], resolution) or follows


def load(folder: Path, compiled: bool) -> Generator:
    """The stage's network on the GPU if there is one, else on the CPU; float32 on both."""
    import torch

    from generation.families.pixel_unet.checkpoint import load_checkpoint
    from generation.networks.placement import best_placement

    network = load_checkpoint(folder)
    return PixelUNetGenerator(best_placement(compiled).place(network, torch.float32))


class PixelUNetGenerator:
    """Samples one stage of a pixel cascade."""

    def __init__(self, network: "PixelUNet") -> None:
        self._network = network

    def sample(self, batch: ImageBatch, settings: SamplerConfig) -> np.ndarray | Screened:
        """uint8[N,H,W,3], or Screened if any is not finite.

        Raises UserError if the batch has no parents and the stage needs them, or none in colour.
        """
        import torch

        from generation.diffusion.augmentation import augment
        from generation.diffusion.residual import residual_of
        from generation.diffusion.sampler import sample
        from generation.diffusion.schedule import NoiseSchedule
        from generation.families.pixel_unet.network import guided_denoiser

        network = self._network
        config = network.config
        device = network.prompt_tokens.device
        _require_effect(config, settings)
        prompt = network.conditions(batch.prompts).to(device)
        shape = (config.channels, config.resolution, config.resolution)
        with torch.inference_mode(), ahead_of_need(image_noise(batch.seeds, shape)) as noise:
            parent = self._parents(batch)
            residual = residual_of(parent, config.resolution, config.residual)
            level = settings.noise_augmentation
            if parent is not None and level > 0:
                lower = next(image_noise([~s & _ALL_ONES for s in batch.seeds], parent.shape[1:]))
                parent = augment(parent, torch.from_numpy(lower).to(device), level)
            denoise = guided_denoiser(network, prompt, settings.guidance, parent, level)
            schedule = NoiseSchedule(config.schedule)
            x0 = sample(
                denoise,
                schedule,
                config.prediction,
                settings,
                lambda: torch.from_numpy(noise()).to(device),
                residual,
            )
        return _to_rgb(x0.float().cpu().numpy())

    def _parents(self, batch: ImageBatch) -> "torch.Tensor | None":
        """float32[N,C,h,w] in [-1, 1] on the network's device."""
        import torch

        config = self._network.config
        if config.low_resolution is None:
            if batch.parents is not None:
                raise UserError(
                    "a base checkpoint cannot follow another stage: it takes no parents"
                )
            return None
        if batch.parents is None or batch.parents.shape[1] != config.low_resolution:
            given = "none" if batch.parents is None else f"{batch.parents.shape[1]} px"
            raise UserError(f"the stage needs parents of {config.low_resolution} px, got {given}")
        coloured = images_in_colour(batch.parents) if config.channels == 1 else 0
        if coloured:
            raise UserError(
                f"{coloured} of {len(batch.parents)} parents are in colour, and the stage's "
                "checkpoint is grey (channels = 1): their colour would be lost"
            )
        images = to_channels(batch.parents, config.channels)
        signal = torch.from_numpy(images.astype(np.float32) / 127.5 - 1)
        return signal.to(self._network.prompt_tokens.device)


def _require_effect(config: "StageConfig", settings: SamplerConfig) -> None:
    """UserError for a setting that this network would not heed."""
    if config.conditioning == "none" and settings.guidance != 1:
        raise UserError("an unconditional checkpoint has nothing to guide by: leave guidance 1")
    if config.variance == "learned" and settings.gamma != 0:
        raise UserError("the checkpoint learned its variance: gamma has no effect, leave it 0")
    if config.low_resolution is None and settings.noise_augmentation != 0:
        raise UserError("a base stage has no parent to add noise to: leave noise_augmentation 0")


_ALL_ONES = (1 << 64) - 1  # ~seed & this: a stream no image seed (53 bits) can be


def _to_rgb(images: np.ndarray) -> np.ndarray | Screened:
    """float32[N,C,H,W] in [-1, 1] => uint8[N,H,W,3], rounded to the nearest level."""
    channels = images.transpose(0, 2, 3, 1)
    rgb = np.repeat(channels, 3, axis=3) if channels.shape[3] == 1 else channels
    return as_levels(np.ascontiguousarray((rgb + 1) * 127.5))
