"""Whether an image's label says something of the image."""

from collections.abc import Sequence
from pathlib import Path

from builder.accept import rule_source
from builder.planning.recipe import StageRecipe
from generation.families import generator_source
from release.classes.class_list import ClassEntry
from release.errors import UserError


def require_meaningful_labels(
    chain: Sequence[StageRecipe], checkpoints: Sequence[Path], classes: Sequence[ClassEntry]
) -> None:
    """UserError if images of several classes begin with a network that knows of none.

    Their labels would be the plan's alone. A rule that judges the label makes them true, if it
    stands where the image is decided: at the first stage.
    """
    first, checkpoint = chain[0], checkpoints[0]
    unconditional = getattr(generator_source(first.generator), "unconditional", None)
    if len(classes) == 1 or unconditional is None or not unconditional(checkpoint):
        return
    rule = first.accept.rule if first.accept else None
    if rule is None or not getattr(rule_source(rule), "JUDGES_LABELS", False):
        raise UserError(
            f"checkpoint {first.checkpoint} is unconditional: a label among {len(classes)} classes "
            "would say nothing of its image; give the recipe a class list of one class, or this "
            'stage an accept rule that judges labels, such as "classifier-confidence"'
        )
