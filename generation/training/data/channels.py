"""A stage's channels follow its data."""

from typing import Any, Protocol, Self, TypeVar

from generation.training.data.training_set import TrainingSet
from release.errors import UserError


class StagedRecipe(Protocol):
    """A training recipe with a [stage] that may name its channels."""

    @property
    def stage(self) -> Any: ...
    def with_channels(self, channels: int) -> Self: ...


Recipe = TypeVar("Recipe", bound=StagedRecipe)


def with_channels_of(recipe: Recipe, images: TrainingSet, source: str) -> Recipe:
    """The recipe with the data's channels where it names none.

    UserError for a grey stage on images in colour: it would lose their colour in silence.
    """
    wanted = recipe.stage.channels
    if wanted == 3:
        return recipe
    coloured = images.in_colour(count=wanted is not None)
    if wanted is None:
        return recipe.with_channels(3 if coloured else 1)
    if coloured:
        raise UserError(
            f"{coloured} of the {len(images)} images of {source} are in colour, which the recipe's "
            "[stage] with channels = 1 would lose: set channels = 3, or leave channels out"
        )
    return recipe
