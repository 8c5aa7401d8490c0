"""Training of a family's networks: the interface of generation/training/trainable.py.

To import it is to import no torch.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from generation.denoisers.checkpoint_files import checkpoint_sha256, resolve
from generation.denoisers.family import Family
from generation.denoisers.recipe import DenoiserRecipe
from generation.pretrained.training_data import saw_tuning
from generation.training.data.channels import with_channels_of
from generation.training.data.training_set import TrainingSet
from generation.training.trainable import StartFacts
from release.classes.class_list import load_classes

if TYPE_CHECKING:
    from accelerate import PartialState

    from generation.denoisers.course import DenoiserCourse
    from generation.denoisers.network import Denoiser
    from generation.training.memory import TrainingMemory


@dataclass(frozen=True)
class DenoiserTrainable:
    """How `finetune-generator` trains a family."""

    family: Family

    @property
    def RECIPE(self) -> type[DenoiserRecipe]:  # noqa: N802 - of the interface
        return self.family.recipe

    def with_start(self, recipe: DenoiserRecipe, start: str | None) -> DenoiserRecipe:
        """The recipe; UserError if its start is another network."""
        from generation.denoisers.start import require_same

        if start is not None:
            require_same(self.family, recipe, prompts_of(recipe), start)
        return recipe

    def sides(self, recipe: DenoiserRecipe) -> tuple[int, ...]:
        """The stage's own; of a super-resolution stage its parent's, too."""
        low = recipe.stage.low_resolution
        return (recipe.stage.resolution, *([] if low is None else [low]))

    def memory(self, recipe: DenoiserRecipe, processes: int) -> "TrainingMemory":
        """In each of `processes`; UserError for a [network] that cannot be."""
        from generation.denoisers.start import planned_memory

        return planned_memory(self.family, recipe, prompts_of(recipe), processes)

    def with_images(
        self, recipe: DenoiserRecipe, images: TrainingSet, source: str
    ) -> DenoiserRecipe:
        """The recipe with the images' channels where it names none."""
        return with_channels_of(recipe, images, source)

    def start_facts(self, start: str | None) -> StartFacts:
        """What a record says of `start`."""
        if start is None:
            return StartFacts()
        folder = resolve(self.family, start)
        return StartFacts(checkpoint_sha256(folder), saw_tuning(folder))

    def course(
        self,
        recipe: DenoiserRecipe,
        start: str | None,
        images: TrainingSet,
        processes: "PartialState",
    ) -> "DenoiserCourse":
        """The training of the stage's network on its images; UserError for another start."""
        from generation.denoisers.course import denoiser_course, training_images

        network = self.starting_network(recipe, start)
        data = training_images(network, recipe, images)
        return denoiser_course(self.family, network, recipe, data, processes)

    def starting_network(self, recipe: DenoiserRecipe, start: str | None) -> "Denoiser":
        """What is trained; UserError for a start that is another network."""
        from generation.denoisers.start import starting_network

        return starting_network(self.family, recipe, prompts_of(recipe), start)


def prompts_of(recipe: DenoiserRecipe) -> tuple[str, ...]:
    """Of the recipe's classes, in label order."""
    return tuple(c.prompt for c in load_classes(recipe.classes))
