"""Training of DiT and SiT, on latents or on pixels: generation/training/trainable.py.

To import it is to import no torch.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from generation.denoisers.latents import LatentTrainable
from generation.denoisers.recipe import DenoiserRecipe
from generation.denoisers.trainable import prompts_of
from generation.families.diffusion_transformer.files import is_file
from generation.families.diffusion_transformer.recipe import TransformerRecipe
from generation.pretrained.diffusers_folder import file_sha256
from generation.pretrained.downloads import model_cache
from generation.pretrained.source_files import locate_file
from generation.training.trainable import StartFacts

if TYPE_CHECKING:
    from generation.denoisers.network import Denoiser


@dataclass(frozen=True)
class TransformerTrainable(LatentTrainable):
    """How `finetune-generator` trains either. published: where authors offer files, in words."""

    published: str

    def with_start(self, recipe: DenoiserRecipe, start: str | None) -> DenoiserRecipe:
        """The recipe, on the latents of its start; UserError if that is another network."""
        own = _own(recipe)
        if start is None:
            return own
        if not is_file(start):
            own = _own(self.on_latents_of(own, start))
            if own.training.classes_embedding == "start":
                return super().with_start(own, start)
        from generation.denoisers.start import planned_network
        from generation.families.diffusion_transformer.network import plan_of
        from generation.families.diffusion_transformer.starting_point import (
            require_fitting,
            start_body,
        )

        network = planned_network(self.family, own, prompts_of(own))
        require_fitting(
            own, plan_of(network.config), start_body(self.family, start, self.published)
        )
        return own

    def planned(self, recipe: DenoiserRecipe, start: str | None) -> DenoiserRecipe:
        """The same; a file that is not on this machine is taken to fit."""
        if start is not None and is_file(start):
            places = (Path(start), model_cache() / Path(start).name)
            if not any(place.is_file() for place in places):
                return recipe
        return self.with_start(recipe, start)

    def start_facts(self, start: str | None) -> StartFacts:
        """What a record says of `start`."""
        if start is not None and is_file(start):
            return StartFacts(file_sha256(locate_file(start, self.published)))
        return super().start_facts(start)

    def starting_network(self, recipe: DenoiserRecipe, start: str | None) -> "Denoiser":
        """From nothing, then with the weights of its start."""
        from generation.families.diffusion_transformer.network import TransformerDenoiser
        from generation.families.diffusion_transformer.starting_point import start_body, started

        network = super().starting_network(recipe, None)
        if start is not None:
            assert isinstance(network, TransformerDenoiser)
            started(network, start_body(self.family, start, self.published), _own(recipe))
        return network


def _own(recipe: DenoiserRecipe) -> TransformerRecipe:
    assert isinstance(recipe, TransformerRecipe)
    return recipe
