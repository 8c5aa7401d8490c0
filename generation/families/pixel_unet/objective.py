"""What a pixel U-Net learns by: to say how an image became noise, told a condition and a parent."""

from torch import Tensor

from generation.diffusion.schedule import NoiseSchedule
from generation.families.pixel_unet.network import PixelUNet
from generation.families.pixel_unet.recipe import PixelUNetTraining
from generation.training.data.images import DrawnImages
from generation.training.denoising import NoisyTraining
from generation.training.loop.objective import Modules, Update

NETWORK = "network"


class PixelUNetObjective:
    """The network of a stage, and its one update, which is logged as "loss"."""

    averaged = (NETWORK,)

    def __init__(self, network: PixelUNet, config: PixelUNetTraining) -> None:
        network.requires_grad_(True)
        if not network.heeds_tokens:
            network.unet.encoder_hid_proj.requires_grad_(False)  # processes share what is used
        self.modules: Modules = {NETWORK: network}
        self.updates = (Update("loss", NETWORK, self._loss),)
        self._training = NoisyTraining(
            network.config.prediction,
            NoiseSchedule(network.config.schedule),
            null_condition=len(network.prompts.prompts) - 1,
            condition_dropout=config.caption_dropout,
            max_augmentation=config.max_augmentation,
            residual=network.config.residual,
        )

    def _loss(self, modules: Modules, drawn: DrawnImages) -> Tensor:
        return self._training.loss(modules[NETWORK], drawn)
