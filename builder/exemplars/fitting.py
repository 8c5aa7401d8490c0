"""Whether a stage's network can begin from exemplars, and from those that the recipe names."""

from collections.abc import Sequence
from pathlib import Path

from builder.exemplars.images import ExemplarImages
from builder.exemplars.located import LocatedExemplars, locate_exemplars
from builder.exemplars.recipe import ExemplarRecipe
from generation.families import exemplar_source


def fitting_exemplars(
    asked: ExemplarRecipe,
    generator: str,
    checkpoint: Path,
    resolution: int,
    class_ids: Sequence[str],
) -> LocatedExemplars:
    """Those that are asked for, each decoded once and compared with what the stage makes.

    UserError for a generator that takes none, and for a release or images that do not fit.
    """
    channels = exemplar_source(generator).exemplar_channels(checkpoint)
    located = locate_exemplars(asked, resolution, class_ids)
    images = ExemplarImages.open(located)
    images.require_enough(class_ids)
    images.require_fit(resolution, channels)
    return located
