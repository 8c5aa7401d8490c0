"""Latents that a family's networks learn from and make, in place of pixels.

To import it is to import no torch.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Self

from pydantic import Field, model_validator

from generation.denoisers.checkpoint_files import read_config, resolve
from generation.denoisers.family import Family
from generation.denoisers.recipe import DenoiserConfig, DenoiserRecipe, DenoiserStage, Table
from generation.denoisers.source import DenoiserSource
from generation.denoisers.trainable import DenoiserTrainable
from generation.networks.guide_fit import guide_difference
from generation.pretrained.autoencoder_files import require_autoencoder
from generation.training.data.channels import with_channels_of
from generation.training.data.training_set import TrainingSet
from release.errors import UserError
from release.layout.latents import Latents

if TYPE_CHECKING:
    from generation.denoisers.network import Denoiser

OWN_AUTOENCODER = "autoencoder"  # within a checkpoint's folder


class LatentSpace(Table):
    """What the network sees of an image: latents of `channels` and of `side`.

    The rest follows from the latents it is trained on, and is filled in from them; what the recipe
    names, they must be. autoencoder: its folder, or its name on the Hub; sha256: of its files.
    """

    channels: Annotated[int, Field(ge=1)]
    side: Annotated[int, Field(ge=1)]
    autoencoder: str = ""
    sha256: str = ""
    scaling_factor: Annotated[float, Field(gt=0)] | None = None
    shift_factor: float | None = None


class LatentStage(DenoiserStage):
    """latents: None for a network that sees pixels."""

    latents: LatentSpace | None = None

    def task(self) -> dict[str, Any]:
        """An autoencoder is the one of its hash, by whatever name."""
        content = super().task()
        if content["latents"] is not None:
            del content["latents"]["autoencoder"]
        return content

    @model_validator(mode="after")
    def _starts_from_nothing(self) -> Self:
        if self.low_resolution is not None:
            raise ValueError("low_resolution: this network enlarges no images")
        return self


def latent_stage(of: DenoiserConfig | DenoiserRecipe) -> LatentStage:
    """The stage of a network, or of a recipe, that may be on latents."""
    assert isinstance(of.stage, LatentStage)
    return of.stage


def seen_by(config: DenoiserConfig) -> tuple[int, int, int]:
    """Channels, height and width of what the network sees."""
    stage = latent_stage(config)
    if stage.latents is None:
        return (config.channels, stage.resolution, stage.resolution)
    return (stage.latents.channels, stage.latents.side, stage.latents.side)


def own_config(family: Family, folder: Path) -> DenoiserConfig:
    """Of a checkpoint of ours; with its autoencoder there, if its folder has a copy of it."""
    config = read_config(family, folder)
    stage, place = latent_stage(config), folder / OWN_AUTOENCODER
    if stage.latents is None or not place.is_dir():
        return config
    latents = stage.latents.model_copy(update={"autoencoder": str(place)})
    return replace(config, stage=stage.model_copy(update={"latents": latents}))


@dataclass
class LatentSource(DenoiserSource):
    """A family's generator, whose checkpoints may need an autoencoder."""

    def locate(self, checkpoint: str) -> Path:
        """The checkpoint's folder; UserError also for an autoencoder that is out of reach."""
        found = super().locate(checkpoint)
        latents = latent_stage(own_config(self.family, found)).latents
        if latents is not None:
            require_autoencoder(latents.autoencoder, latents.sha256)
        return found

    def guide_problem(self, folder: Path, guide: Path) -> str | None:
        """Why the network in `guide` cannot guide the one in `folder`."""
        config, weaker = (read_config(self.family, one) for one in (folder, guide))
        task, found = (one.stage.task() for one in (config, weaker))
        return guide_difference(task, found, config.classes, weaker.classes)

    def network(self, folder: Path, compiled: bool) -> "Denoiser":
        """A checkpoint's network, where it is to run, with its own copy of its autoencoder."""
        network = super().network(folder, compiled)
        network.config = own_config(self.family, folder)
        return network


@dataclass(frozen=True)
class LatentTrainable(DenoiserTrainable):
    """How `finetune-generator` trains a family on latents, or on pixels."""

    LATENTS = True

    def with_start(self, recipe: DenoiserRecipe, start: str | None) -> DenoiserRecipe:
        """The recipe, on the latents of its start; UserError if that is another network."""
        found = recipe if start is None else self.on_latents_of(recipe, start)
        return super().with_start(found, start)

    def on_latents_of(self, recipe: DenoiserRecipe, start: str) -> DenoiserRecipe:
        """The recipe with all that a checkpoint of ours says of its latents."""
        found = latent_stage(read_config(self.family, resolve(self.family, start))).latents
        wanted = latent_stage(recipe).latents
        if wanted is None or found is None:
            return recipe
        return with_latents(recipe, _filled(wanted, found, f"--from {start} has latents"))

    def with_images(
        self, recipe: DenoiserRecipe, images: TrainingSet, source: str
    ) -> DenoiserRecipe:
        """The recipe for such latents, or for images of so many channels.

        UserError for images where it learns from latents, the reverse, and other latents.
        """
        wanted, found = latent_stage(recipe).latents, images.latents
        if wanted is None and found is None:
            return with_channels_of(recipe, images, source)
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
        if recipe.training.flip and not found.mirrored:
            raise UserError(
                f"{source} has no latents of mirrored images, which flip = true needs: make them "
                "with `release encode --mirrored`, or set flip = false"
            )
        return with_latents(recipe, _filled(wanted, _space(found), f"{source} holds latents"))


def with_latents(recipe: DenoiserRecipe, latents: LatentSpace) -> DenoiserRecipe:
    """For latents of this space."""
    stage = recipe.stage.model_copy(update={"latents": latents})
    return recipe.model_copy(update={"stage": stage})


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
