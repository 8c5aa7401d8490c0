"""Whether a recipe's regime fits what its checkpoints say they learned from."""

from collections.abc import Sequence
from pathlib import Path

from builder.planning.checkpoints import LocatedGuide
from builder.planning.recipe import Recipe, StageRecipe
from generation.pretrained.training_data import training_data
from release.errors import UserError


def require_regime(
    recipe: Recipe,
    chain: Sequence[StageRecipe],
    places: Sequence[Path],
    guides: Sequence[LocatedGuide | None] | None = None,
) -> None:
    """UserError for regime A over a checkpoint that was trained on images of the recipe's classes.

    places, guides: of each stage's checkpoint, and its guide; by default no stage has one.
    """
    guides = guides if guides is not None else [None] * len(chain)
    for stage, place, guide in zip(chain, places, guides, strict=True):
        found = [place, *([] if guide is None else [guide.place])]
        for named, of in zip(stage.checkpoints, found, strict=True):
            learned = training_data(of)
            if learned is None or learned.classes != recipe.classes:
                continue
            if (stage.regime or recipe.regime) == "A":
                raise UserError(
                    f"recipe {recipe.name}: regime A says that the generator never saw the data "
                    f"set, but checkpoint {named} was trained on {learned.release}, images of "
                    f'the classes {learned.classes}: set regime = "B"'
                )
