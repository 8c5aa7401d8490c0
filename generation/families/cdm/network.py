"""CDM's networks (Ho et al. 2022, appendix B): the U-Net of Improved DDPM, which a stage after
another tells also how much noise is in its parent."""

import torch
from torch import Tensor
from torch.nn import functional as F

from generation.denoisers.recipe import DenoiserConfig
from generation.families.cdm.recipe import CDMStage
from generation.families.openai_unet.network import EMBEDDING, OpenAIUNet
from generation.families.openai_unet.recipe import OpenAIShape
from generation.networks.blocks import LevelEmbedding


class CDMUNet(OpenAIUNet):
    """Predicts epsilon and, where it learns its variance, v."""

    def __init__(self, config: DenoiserConfig) -> None:
        super().__init__(config)
        shape: OpenAIShape = config.network
        stage = config.stage
        assert isinstance(stage, CDMStage)
        noisy = stage.augmentation == "noise"
        width = EMBEDDING * shape.base_channels
        self.level = LevelEmbedding(shape.base_channels, width) if noisy else None

    def predict(
        self,
        x: Tensor,
        log_snr: Tensor,
        condition: Tensor,
        parent: Tensor | None,
        carried: Tensor | None,
    ) -> tuple[Tensor, None]:
        """float[N,C or 2C,H,W]. parent: where noise is in it, its level is one channel more; one
        without that channel is told to be clean."""
        told, channels = self.classes(condition), self.config.channels
        if parent is not None and self.level is not None:
            said = parent[:, channels:].amax(dim=(2, 3))  # the same everywhere in an image
            level = said[:, 0] if said.shape[1] else parent.new_zeros(len(parent))
            told = told + self.level(level)
        if parent is not None:
            image = parent[:, :channels]
            enlarged = F.interpolate(image, x.shape[2:], mode="bilinear", align_corners=False)
            x = torch.cat([x, enlarged], dim=1)
        assert carried is None
        return self.said(x, log_snr, told), None
