"""A family of class-conditional denoising networks: all that is its own."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from generation.denoisers.recipe import DenoiserConfig, DenoiserRecipe
from generation.diffusion.sampler_config import SamplerConfig

if TYPE_CHECKING:
    from generation.denoisers.learning import Loss
    from generation.denoisers.network import Denoiser
    from generation.generator import Generator

# A solver, which adds no noise, leaves that of a network which says epsilon over its images, most
# of all in the beginning.
PREVIEW = SamplerConfig(method="ddim", eta=1, steps=16, spacing_power=1.5)


@dataclass(frozen=True)
class Family:
    """name: by which recipes and checkpoints name it. recipe: of its trainings. enlarges: whether
    its stages may have parents.

    network: makes an untrained one; ValueError for a shape that cannot be. loss: what it learns by,
    given a recipe. generator: samples a network, and its guide where one is given after it, in the
    dtype they run in; by default that of generation/denoisers/source.py. All import torch when they
    are called, not before. preview: sampler of the images that a training shows.
    """

    name: str
    recipe: type[DenoiserRecipe]
    network: "Callable[[DenoiserConfig], Denoiser]"
    loss: "Callable[[DenoiserRecipe], Loss]"
    enlarges: bool = False
    generator: "Callable[..., Generator] | None" = None
    preview: SamplerConfig = PREVIEW

    def sampler(self, *networks: "Denoiser") -> "Generator":
        """The generator of a network, or of one and its guide."""
        if self.generator is not None:
            return self.generator(*networks)
        from generation.denoisers.source import DenoiserGenerator

        return DenoiserGenerator(*networks)
