"""Training of DiT and SiT, on latents or on pixels: generation/training/trainable.py.

To import it is to import no torch.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from generation.denoisers.checkpoint_files import read_config, resolve
from generation.denoisers.recipe import DenoiserRecipe
from generation.denoisers.trainable import DenoiserTrainable, prompts_of
from generation.families.diffusion_transformer.files import is_file
from generation.families.diffusion_transformer.recipe import (
    LatentSpace,
    TransformerRecipe,
    TransformerStage,
)
from generation.pretrained.diffusers_folder import file_sha256
from generation.pretrained.downloads import model_cache
from generation.pretrained.source_files import locate_file
from generation.training.data.channels import with_channels_of
from generation.training.data.training_set import TrainingSet
from generation.training.trainable import StartFacts
from release.errors import UserError
from release.layout.latents import Latents

if TYPE_CHECKING:
    from generation.denoisers.network import Denoiser


@dataclass(frozen=True)
class TransformerTrainable(DenoiserTrainable):
    """How `finetune-generator` trains either. published: where authors offer files, in words."""

    LATENTS = True
    published: str

    def with_start(self, recipe: DenoiserRecipe, start: str | None) -> DenoiserRecipe:
        """The recipe, on the latents of its start; UserError if that is another network."""
        own = _own(recipe)
        if start is None:
            return own
        if not is_file(start):
            own = self._on_latents_of(own, start)
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

    def _on_latents_of(self, recipe: TransformerRecipe, start: str) -> TransformerRecipe:
        stage = read_config(self.family, resolve(self.family, start)).stage
        assert isinstance(stage, TransformerStage)
        wanted, found = recipe.stage.latents, stage.latents
        if wanted is None or found is None:
            return recipe
        return recipe.with_latents(_filled(wanted, found, f"--from {start} has latents"))

    def with_images(
        self, recipe: DenoiserRecipe, images: TrainingSet, source: str
    ) -> DenoiserRecipe:
        """The recipe for such latents, or for images of so many channels.

        UserError for images where it learns from latents, the reverse, and other latents.
        """
        own = _own(recipe)
        wanted, found = own.stage.latents, images.latents
        if wanted is None and found is None:
            return with_channels_of(own, images, source)
        if found is None:
            raise UserError(
                f"{source} holds images, and the recipe {recipe.name} learns from latents: make "
                "them with `release encode`, and give RELEASE/latents/NAME as --data"
            )
        if wanted is None:
            raise UserError(
                f"{source} holds latents, and the recipe {recipe.name} learns from pixels: name "
                "the images' release, or give [stage.latents] channels and side"
            )
        if own.training.flip and not found.mirrored:
            raise UserError(
                f"{source} has no latents of mirrored images, which flip = true needs: make them "
                "with `release encode --mirrored`, or set flip = false"
            )
        return own.with_latents(_filled(wanted, _space(found), f"{source} holds latents"))


def _own(recipe: DenoiserRecipe) -> TransformerRecipe:
    assert isinstance(recipe, TransformerRecipe)
    return recipe


def _space(latents: Latents) -> LatentSpace:
    name = latents.autoencoder
    if Path(name).is_dir():
        name = str(Path(name).resolve())
    return LatentSpace(
        channels=latents.channels,
        side=latents.side,
        autoencoder=name,
        sha256=latents.sha256,
        scaling_factor=latents.scaling_factor,
        shift_factor=latents.shift_factor,
    )


def _filled(wanted: LatentSpace, found: LatentSpace, what: str) -> LatentSpace:
    """`found`, if it is what the recipe states of it; UserError names what differs.

    An autoencoder is the one of a hash, by whatever name.
    """
    unsaid: tuple[Any, ...] = ("", None)
    for field in LatentSpace.model_fields:
        named, is_ = getattr(wanted, field), getattr(found, field)
        if named in unsaid or field == "autoencoder":
            continue
        if named != is_:
            raise UserError(f"{what} of {field} {is_}, the recipe's [stage.latents] {named}")
    return found
