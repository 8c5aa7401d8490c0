"""Sampling of CDM's stages: conditioning augmentation of finished parents, or of truncated ones.

Not truncated (Ho et al. 2022, section 3.3): the parent is whole, and noise of level s is added to
it. Truncated (section 3.2): the stage before stopped at level s, and its image has that noise.
"""

import torch
from torch import Tensor

from generation.diffusion.augmentation import augment, noisy_range
from generation.diffusion.noise import parent_noise
from generation.diffusion.sampler_config import SamplerConfig
from generation.families.cdm.augmentation import with_level
from generation.families.cdm.recipe import CDMStage
from generation.families.openai_unet.sampling import GuidedGenerator
from generation.generator import ImageBatch
from release.errors import UserError


class CascadeGenerator(GuidedGenerator):
    """Samples one stage."""

    takes_noisy_parents = True

    def parents(
        self, batch: ImageBatch, settings: SamplerConfig, device: torch.device
    ) -> Tensor | None:
        """float32[N,C,h,w]; where the network is told of noise, with its level as a channel."""
        parent = super().parents(batch, settings, device)
        level = settings.noise_augmentation
        if parent is None or level == 0:
            return parent
        if settings.truncated:
            return with_level(parent * noisy_range(level), level)
        noise = torch.from_numpy(parent_noise(batch.seeds, tuple(parent.shape[1:])))
        return with_level(augment(parent, noise.to(device), level), level)

    def require_effect(self, settings: SamplerConfig) -> None:
        """UserError also for noise that the stage was not trained to see."""
        super().require_effect(settings)
        stage = self._network.config.stage
        assert isinstance(stage, CDMStage)
        most = stage.max_augmentation if stage.augmentation == "noise" else 0
        if settings.noise_augmentation > most:
            raise UserError(
                f"noise_augmentation {settings.noise_augmentation:g} is more than the "
                f"{most:g} that the checkpoint was trained with"
            )
