"""The pixel U-Net stages that `finetune-generator` trains, base and super-resolution."""

import json
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from generation.diffusion.noise import ahead_of_need, image_noise, parent_noise
from generation.diffusion.sampler_config import PIXEL_METHODS, SamplerConfig
from generation.diffusion.schedule import NoiseSchedule, ScheduleConfig
from generation.families.pixel_unet.checkpoint_files import (
    STAGE_FILE,
    checkpoint_sha256,
    resolve_checkpoint,
)
from generation.generator import Generator, ImageBatch, Screened
from generation.networks.guide_fit import guide_difference
from generation.networks.image_sizes import from_nothing, from_side, one_size
from generation.networks.pixels import parents_of, start_of, to_rgb
from release.commands.validation import validated
from release.errors import UserError

TASK = (  # in which a guide must be as the stage that it guides
    *("resolution", "channels", "low_resolution", "residual"),
    *("prediction", "schedule", "conditioning"),
)

CLASSIFIER_GUIDED = True
OF_RESIDUALS = (
    "diffuses what an image adds to its parent, of which a classifier of noisy images knows "
    "nothing: leave classifier out"
)

if TYPE_CHECKING:
    from generation.diffusion.sampler import Guide
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


def known_prompts(folder: Path) -> tuple[str, ...] | None:
    """Those that the stage learned; None if it asks for none."""
    return None if unconditional(folder) else tuple(_stage(folder).get("prompts", ())[:-1])


def _stage(folder: Path) -> dict[str, Any]:
    """The checkpoint's description; UserError if it is none."""
    with suppress(ValueError):
        content = json.loads((folder / STAGE_FILE).read_bytes())
        whole = isinstance(content, dict) and "resolution" in content
        if whole and isinstance(content.get("prompts", []), list):
            return dict(content)
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


def methods() -> tuple[str, ...]:
    """The sampler methods that it takes."""
    return PIXEL_METHODS


def size_problem(folder: Path | None, resolution: int, parent: int | None) -> str | None:
    """What keeps the stage from making `resolution` px images from `parent` px ones."""
    if folder is None:
        return None
    stage = _stage(folder)
    low = stage.get("low_resolution")
    follows = from_nothing(parent) if low is None else from_side(low, parent)
    return one_size(stage["resolution"], resolution) or follows


def exemplar_channels(folder: Path) -> int:
    """Of the stage's images."""
    return int(_stage(folder).get("channels", 1))


def classifier_problem(folder: Path) -> str | None:
    """Why no classifier of noisy images guides the stage in `folder`."""
    return None if _stage(folder).get("residual") is None else OF_RESIDUALS


def schedule(checkpoint: str) -> ScheduleConfig | None:
    """Of a stage that is here; UserError for one that is damaged."""
    place = Path(checkpoint)
    if not checkpoint.startswith("builtin:") and not (place / STAGE_FILE).is_file():
        return None
    folder = locate(checkpoint)
    content = _stage(folder).get("schedule", {})
    return validated(ScheduleConfig, content, str(folder / STAGE_FILE))


def guide_problem(folder: Path, guide: Path) -> str | None:
    """Why the stage in `guide` cannot guide the one in `folder`."""
    stage, weaker = _stage(folder), _stage(guide)
    facts, found = ({name: one.get(name) for name in TASK} for one in (stage, weaker))
    return guide_difference(facts, found, stage.get("prompts", ()), weaker.get("prompts", ()))


def load(folder: Path, compiled: bool) -> Generator:
    """The stage's network on the GPU if there is one, in the precision of its training; else on the
    CPU in float32."""
    return PixelUNetGenerator(_network(folder, compiled))


def load_guided(folder: Path, guide: Path, compiled: bool) -> Generator:
    """The same, guided by the stage in `guide`."""
    return PixelUNetGenerator(_network(folder, compiled), _network(guide, compiled))


def _network(folder: Path, compiled: bool) -> "PixelUNet":
    from generation.families.pixel_unet.checkpoint import load_checkpoint
    from generation.networks.placement import best_placement

    network = load_checkpoint(folder)
    return best_placement(compiled).on_gpu(network.config.precision).place(network)


class PixelUNetGenerator:
    """Samples one stage of a pixel cascade. guide: what guidance leads away from; by default the
    network, told the null condition."""

    def __init__(self, network: "PixelUNet", guide: "PixelUNet | None" = None) -> None:
        self._network, self._guide = network, guide

    def sample(self, batch: ImageBatch, settings: SamplerConfig) -> np.ndarray | Screened:
        """uint8[N,H,W,3], or Screened if any is not finite.

        Raises UserError if the batch has no parents and the stage needs them, or none in colour.
        """
        import torch

        from generation.diffusion.augmentation import augment
        from generation.diffusion.residual import residual_of
        from generation.diffusion.sampler import sample
        from generation.families.pixel_unet.sampling import bound_denoiser

        network = self._network
        config = network.config
        device = network.prompt_tokens.device
        _require_effect(config, settings, guided=self._guide is not None)
        shape = (config.channels, config.resolution, config.resolution)
        with torch.inference_mode(), ahead_of_need(image_noise(batch.seeds, shape)) as noise:
            parent = parents_of(batch, config.low_resolution, config.channels, device)
            residual = residual_of(parent, config.resolution, config.residual)
            level = settings.noise_augmentation
            if parent is not None and level > 0:
                lower = parent_noise(batch.seeds, tuple(parent.shape[1:]))
                parent = augment(parent, torch.from_numpy(lower).to(device), level)
            schedule = NoiseSchedule(config.schedule)
            x0 = sample(
                bound_denoiser(network, self._guide, batch.prompts, settings, parent),
                schedule,
                config.prediction,
                settings,
                lambda: torch.from_numpy(noise()).to(device),
                residual,
                self._classifier(batch, schedule, settings),
                start_of(batch, config.channels, device),
            )
        return to_rgb(x0.float().cpu().numpy())

    def _classifier(
        self, batch: ImageBatch, schedule: NoiseSchedule, settings: SamplerConfig
    ) -> "Guide | None":
        """The gradient of the one that the settings name; None without one."""
        if settings.classifier is None:
            return None
        from generation.families.noisy_classifier.guidance import classifier_guide

        config, device = self._network.config, self._network.prompt_tokens.device
        seen = (config.resolution, config.channels)
        return classifier_guide(settings.classifier, schedule, batch.prompts, seen, device)


def _require_effect(config: "StageConfig", settings: SamplerConfig, *, guided: bool) -> None:
    """UserError for a setting that this network would not heed. guided: by another network."""
    if config.conditioning == "none" and settings.guidance != 1 and not guided:
        raise UserError("an unconditional checkpoint has nothing to guide by: leave guidance 1")
    if config.variance == "learned" and settings.gamma != 0:
        raise UserError("the checkpoint learned its variance: gamma has no effect, leave it 0")
    if settings.truncated:
        raise UserError("the checkpoint sees whole parents with noise added: leave truncated out")
    if config.low_resolution is None and settings.noise_augmentation != 0:
        raise UserError("a base stage has no parent to add noise to: leave noise_augmentation 0")
    if settings.classifier is not None and config.residual is not None:
        raise UserError(f"the checkpoint {OF_RESIDUALS}")
