"""What decided a finished release's images otherwise than a recipe would now."""

from collections.abc import Iterator, Sequence
from typing import Any

from builder.builds.planned import planned_release
from builder.planning.plan import StagePlan
from release.classes.class_list import ClassEntry, class_difference
from release.errors import UserError
from release.files.storage import ReleasePath
from release.layout.manifest import read_manifest

NAMED = 5  # differences in one line


def stage_differences(
    release: ReleasePath, seed: int, classes: Sequence[ClassEntry], stages: Sequence[StagePlan]
) -> str:
    """ ": seed was 7, is 8; …", the stages that both have compared; empty if it cannot be told.

    A release that was never finished has no manifest, which alone says what it was made with.
    """
    try:
        manifest = read_manifest(release)
        planned = planned_release(manifest)
    except UserError:
        return ""
    found = list(_differences({"seed": planned.recipe.seed}, {"seed": seed}))
    found += _class_differences(manifest.classes, classes)
    before = {stage.recipe.resolution: stage for stage in planned.stages}
    for stage in stages:
        if stage.recipe.resolution in before:
            place = f"stage {stage.recipe.resolution}: "
            found += _differences(
                _deciding(before[stage.recipe.resolution]), _deciding(stage), place
            )
    more = f" and {len(found) - NAMED} more" if len(found) > NAMED else ""
    return f": {'; '.join(found[:NAMED])}{more}" if found else ""


def _deciding(stage: StagePlan) -> dict[str, Any]:
    """The settings that go into a stage's fingerprint, by name."""
    recipe = stage.recipe
    sampler = {f"sampler.{name}": value for name, value in recipe.sampler.model_dump().items()}
    return {
        "generator": recipe.generator,
        "checkpoint": stage.checkpoint_sha256[:12],
        "guide": stage.guide and stage.guide.sha256[:12],
        **_exemplars(stage),
        **sampler,
        "batch": recipe.batch,
        "encoding": stage.encoding,
        "accept": recipe.accept and recipe.accept.model_dump(mode="json"),
        "compile": recipe.compile,
        "precision": recipe.precision,
        "prompts": stage.prompts and stage.prompts[:12],
    }


def _exemplars(stage: StagePlan) -> dict[str, Any]:
    """What decides them, by name."""
    content = stage.exemplars.identity() if stage.exemplars else {}
    return {
        f"exemplars.{name}": value[:12] if name == "release" else value
        for name, value in content.items()
    }


def _differences(before: dict[str, Any], now: dict[str, Any], place: str = "") -> Iterator[str]:
    for name in {**before, **now}:
        if before.get(name) != now.get(name):
            yield f"{place}{name} was {before.get(name)}, is {now.get(name)}"


def _class_differences(before: Sequence[ClassEntry], now: Sequence[ClassEntry]) -> Iterator[str]:
    difference = class_difference([c.wnid for c in before], [c.wnid for c in now])
    if difference:
        yield f"classes: {difference}"
        return
    for old, new in zip(before, now, strict=True):
        for name in ("name", "prompt"):
            if getattr(old, name) != getattr(new, name):
                was, is_ = getattr(old, name), getattr(new, name)
                yield f"{name} of {old.wnid} was {was!r}, is {is_!r}"
