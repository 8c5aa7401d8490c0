"""Training of OpenAI's U-Nets: the interface of generation/training/trainable.py, for each."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from generation.families.adm import generators
from generation.families.adm.generators import OpenAISource
from generation.families.adm.networks import NETWORKS
from generation.families.adm.recipe import OpenAIRecipe
from generation.families.adm.starting_point import (
    base_of,
    shape_in,
    start_facts,
    start_file,
    starting_network,
    with_planned_shape,
    with_shape_of,
)
from generation.pretrained.finetuned import FineTuned
from generation.training.config import PRECISION_NAMES
from generation.training.data.training_set import TrainingSet
from generation.training.trainable import StartFacts

if TYPE_CHECKING:
    from accelerate import PartialState

    from generation.families.adm.course import OpenAICourse
    from generation.training.memory import TrainingMemory


@dataclass(frozen=True)
class OpenAITrainable:
    """How the networks of one source are trained."""

    source: OpenAISource
    RECIPE = OpenAIRecipe

    def with_start(self, recipe: OpenAIRecipe, start: str | None) -> OpenAIRecipe:
        """The recipe with the shape of its start; UserError if that does not fit it."""
        return with_shape_of(self.source, recipe, start)

    def planned(self, recipe: OpenAIRecipe, start: str | None) -> OpenAIRecipe:
        """The same, of the published shape where the start is not on this machine."""
        return with_planned_shape(self.source, recipe, start)

    def sides(self, recipe: OpenAIRecipe) -> tuple[int, ...]:
        """The stage's own; of the upsampler its parent's, too."""
        low = recipe.stage.low_resolution
        return (recipe.stage.resolution, *([] if low is None else [low]))

    def memory(self, recipe: OpenAIRecipe, processes: int) -> "TrainingMemory":
        """In each of `processes`."""
        import torch

        from generation.families.adm.converter import planned_unet
        from generation.families.adm.objective import LabelledUNet
        from generation.training.memory import training_memory

        stage, heads = recipe.stage, NETWORKS[self.source.name].heads
        network = LabelledUNet(planned_unet(shape_in(recipe), heads, str(recipe.start)))

        def forward(images: int) -> None:
            def zeros(side: int) -> torch.Tensor:
                return torch.zeros(images, 3, side, side, device="meta")

            numbers = torch.zeros(images, dtype=torch.int64, device="meta")
            low = stage.low_resolution
            network(
                zeros(stage.resolution), numbers, numbers, *([] if low is None else [zeros(low)])
            )

        return training_memory(network, forward, recipe.training, processes)

    def with_images(self, recipe: OpenAIRecipe, _images: TrainingSet, _source: str) -> OpenAIRecipe:
        """The recipe as it is: these networks see every image in colour."""
        return recipe

    def start_facts(self, start: str | None) -> StartFacts:
        """What a record says of the start."""
        return start_facts(self.source, start)

    def course(
        self,
        recipe: OpenAIRecipe,
        start: str | None,
        images: TrainingSet,
        processes: "PartialState",
    ) -> "OpenAICourse":
        """The training of the start's U-Net; a label is its class's place in the list."""
        import torch

        from generation.families.adm.course import OpenAICourse
        from generation.families.adm.objective import OpenAIObjective
        from generation.training.data.images import even_batches

        config, name = recipe.training, self.source.name
        network = starting_network(self.source, recipe, start_file(self.source, start))
        shape = shape_in(recipe)
        data = images.told(torch.arange(shape.classes or 0), 3)
        about = FineTuned(
            generator=name,
            resolution=recipe.stage.resolution,
            precision=PRECISION_NAMES[config.precision],
            base=base_of(self.source, start),
        )
        return OpenAICourse(
            OpenAIObjective(network, NETWORKS[name]),
            even_batches(data, config, processes, flip=config.flip),
            NETWORKS[name],
            shape,
            about,
        )


ADM_64 = OpenAITrainable(generators.ADM_64)
ADM_256 = OpenAITrainable(generators.ADM_256)
ADM_UPSAMPLER = OpenAITrainable(generators.ADM_UPSAMPLER)
IDDPM = OpenAITrainable(generators.IDDPM)
