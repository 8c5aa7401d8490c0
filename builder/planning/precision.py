"""Whether stages can run in the precision of their recipe: asked before a model is fetched."""

from collections.abc import Sequence

from builder.planning.recipe import StageRecipe
from generation.families import fp8_source
from generation.networks.fp8 import fp8_problem
from release.errors import UserError


def require_precision(stages: Sequence[StageRecipe]) -> None:
    """UserError for a stage in fp8 whose generator has no such precision."""
    for stage in stages:
        if stage.precision is not None:
            fp8_source(stage.generator)


def require_precision_here(stages: Sequence[StageRecipe]) -> None:
    """UserError for a stage in fp8 that this machine cannot run so."""
    for stage in stages:
        problem = None if stage.precision is None else fp8_problem()
        if problem is not None:
            raise UserError(
                f'the stage at {stage.resolution} px has precision = "fp8", which {problem}'
            )
