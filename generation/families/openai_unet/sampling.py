"""Sampling of networks that say their own variance, and guidance by a classifier."""

from generation.denoisers.source import DenoiserGenerator
from generation.diffusion.sampler import Guide
from generation.diffusion.sampler_config import SamplerConfig
from generation.diffusion.schedule import NoiseSchedule
from generation.families.noisy_classifier.guidance import classifier_guide
from generation.families.openai_unet.recipe import OpenAIShape
from generation.generator import ImageBatch
from release.errors import UserError


class GuidedGenerator(DenoiserGenerator):
    """Samples one stage."""

    guided_by_classifier = True

    def guide(
        self, batch: ImageBatch, schedule: NoiseSchedule, settings: SamplerConfig
    ) -> Guide | None:
        """The gradient of the classifier that the settings name."""
        if settings.classifier is None:
            return None
        config = self._network.config
        device = next(self._network.parameters()).device
        told = (config.stage.resolution, config.channels)
        return classifier_guide(settings.classifier, schedule, list(batch.prompts), told, device)

    def require_effect(self, settings: SamplerConfig) -> None:
        """UserError also for a variance that is set where it was learned."""
        super().require_effect(settings)
        shape: OpenAIShape = self._network.config.network
        if shape.variance == "learned" and settings.gamma != 0:
            raise UserError("the checkpoint learned its variance: gamma has no effect, leave it 0")
