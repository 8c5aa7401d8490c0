"""Code that a release's recipe names: run only where the one who runs it has said so.

A recipe may name a generator or an accept rule by a dotted module. In a recipe of one's own that is
a choice; in the manifest of a release that came from elsewhere it is a stranger's, and importing a
module runs it.
"""

from collections.abc import Collection, Iterator

from builder.accept import MODULES as RULES
from builder.builds.planned import planned_release
from builder.planning.recipe import Recipe
from generation.families import MODULES as GENERATORS
from release.errors import UserError
from release.layout.manifest import Manifest


def require_trust(manifest: Manifest, trusted: Collection[str]) -> None:
    """UserError for a module that the release's recipe names and `trusted` does not."""
    if manifest.kind == "real":
        return
    for kind, name in foreign_modules(planned_release(manifest).recipe):
        if name not in trusted:
            raise UserError(
                f"the recipe of {manifest.name} names {kind} {name}, code that is not ours and "
                f"would be run here: if you know it, give --trust {name}"
            )


def foreign_modules(recipe: Recipe) -> Iterator[tuple[str, str]]:
    """Kind and dotted name of each module of others that any stage of the recipe names."""
    for stage in recipe.stages:
        rule = stage.accept.rule if stage.accept else None
        if "." in stage.generator and stage.generator not in GENERATORS.values():
            yield "generator", stage.generator
        if rule and "." in rule and rule not in RULES.values():
            yield "accept rule", rule
