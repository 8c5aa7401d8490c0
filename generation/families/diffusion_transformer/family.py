"""DiT and SiT as generators and trainings name them; REPA as generators do."""

from typing import TYPE_CHECKING

from generation.denoisers.family import Family
from generation.denoisers.recipe import DenoiserConfig, DenoiserRecipe
from generation.diffusion.sampler_config import SamplerConfig
from generation.families.diffusion_transformer.files import TransformerFiles
from generation.families.diffusion_transformer.layout import DIT_LAYOUT, REPA_LAYOUT, SIT_LAYOUT
from generation.families.diffusion_transformer.recipe import DiTRecipe, SiTRecipe
from generation.families.diffusion_transformer.source import TransformerSource
from generation.families.diffusion_transformer.trainable import TransformerTrainable
from generation.families.dit import generator as diffusers_dit

if TYPE_CHECKING:
    from generation.denoisers.learning import Loss
    from generation.denoisers.network import Denoiser
    from generation.generator import Generator

DIT_FILES = "github.com/facebookresearch/DiT (DiT-XL-2-256x256.pt, DiT-XL-2-512x512.pt)"
SIT_FILES = "github.com/willisma/SiT, whose download.py names the address (SiT-XL-2-256x256.pt)"
REPA_FILES = "github.com/sihyun-yu/REPA, whose generate.py fetches it"


def _network(config: DenoiserConfig) -> "Denoiser":
    from generation.families.diffusion_transformer.network import TransformerDenoiser

    return TransformerDenoiser(config)


def _generator(network: "Denoiser", guide: "Denoiser | None" = None) -> "Generator":
    from generation.families.diffusion_transformer.network import TransformerDenoiser
    from generation.families.diffusion_transformer.sampling import TransformerGenerator

    assert isinstance(network, TransformerDenoiser)
    assert guide is None or isinstance(guide, TransformerDenoiser)
    return TransformerGenerator(network, guide)


def _dit_loss(_: DenoiserRecipe) -> "Loss":
    from generation.families.diffusion_transformer.objective import hybrid_loss

    return hybrid_loss


def _sit_loss(_: DenoiserRecipe) -> "Loss":
    from generation.families.diffusion_transformer.objective import velocity_loss

    return velocity_loss


DIT_FAMILY = Family(
    "dit",
    DiTRecipe,
    _network,
    _dit_loss,
    generator=_generator,
    preview=SamplerConfig(method="dpm-solver++", steps=12, threshold="none"),
)
SIT_FAMILY = Family(
    "sit",
    SiTRecipe,
    _network,
    _sit_loss,
    generator=_generator,
    preview=SamplerConfig(method="heun", steps=8, threshold="none"),
)
DIT = TransformerSource(DIT_FAMILY, TransformerFiles(DIT_FILES, DIT_LAYOUT), diffusers_dit)
SIT = TransformerSource(SIT_FAMILY, TransformerFiles(SIT_FILES, SIT_LAYOUT))
REPA = TransformerFiles(REPA_FILES, REPA_LAYOUT)
DIT_TRAINABLE = TransformerTrainable(DIT_FAMILY, DIT_FILES)
SIT_TRAINABLE = TransformerTrainable(SIT_FAMILY, SIT_FILES)
