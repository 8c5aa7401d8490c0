"""Training of DiT and SiT, on latents or on pixels: generation/training/trainable.py.

To import it is to import no torch.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from generation.denoisers.checkpoint_files import read_config, resolve
from generation.denoisers.recipe import DenoiserRecipe
from generation.denoisers.trainable import DenoiserTrainable
from generation.families.diffusion_transformer.recipe import (
    LatentSpace,
    TransformerRecipe,
    TransformerStage,
)
from generation.training.data.channels import with_channels_of
from generation.training.data.training_set import TrainingSet
from release.errors import UserError
from release.layout.latents import Latents


@dataclass(frozen=True)
class TransformerTrainable(DenoiserTrainable):
    """How `finetune-generator` trains either."""

    LATENTS = True

    def with_start(self, recipe: DenoiserRecipe, start: str | None) -> DenoiserRecipe:
        """The recipe, on the latents of its start; UserError if that is another network."""
        if start is not None:
            recipe = self._on_latents_of(_own(recipe), start)
        return super().with_start(recipe, start)

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
