"""Classifiers that guide a stage's sampler: found, hashed and checked when a build is planned."""

from collections.abc import Sequence
from pathlib import Path

from builder.planning.prompts import PromptChoice
from builder.planning.recipe import StageRecipe
from generation.diffusion.sampler_config import ClassifierGuidance
from generation.families import MODULES, generator_source
from generation.families.noisy_classifier.files import (
    locate_classifier,
    require_classes,
    require_levels,
)
from release.classes.class_list import ClassEntry
from release.errors import UserError


def with_classifiers(
    chain: Sequence[StageRecipe], classes: Sequence[ClassEntry], prompts: PromptChoice
) -> list[StageRecipe]:
    """The stages, each with its classifier's hash, which is part of what decides its images.

    prompts: what images of a class may be prompted with; a classifier that guides to a class must
    know all of them.

    UserError for a generator that none can guide, and for a classifier that does not fit.
    """
    return [_with_classifier(stage, classes, prompts) for stage in chain]


def _with_classifier(
    stage: StageRecipe, classes: Sequence[ClassEntry], prompts: PromptChoice
) -> StageRecipe:
    guidance = stage.sampler.classifier
    if guidance is None:
        return stage
    if not _is_guided(stage.generator):
        guided = ", ".join(name for name in MODULES if _is_guided(name))
        raise UserError(
            f"the sampler of stage {stage.resolution} names a classifier, by which "
            f"{stage.generator} is not guided; these are: {guided}"
        )
    folder, found = locate_classifier(guidance, stage.resolution)
    if guidance.towards == "class":
        require_classes(guidance, folder, prompts.of_all(classes))
    else:  # no image's class is asked for, but the entropy is of these classes
        require_classes(guidance, folder, PromptChoice().of_all(classes))
    _require_stage(stage, guidance, folder)
    sampler = stage.sampler.model_copy(
        update={"classifier": guidance.model_copy(update={"sha256": found})}
    )
    return stage.model_copy(update={"sampler": sampler})


def _require_stage(stage: StageRecipe, guidance: ClassifierGuidance, folder: Path) -> None:
    """UserError for a stage that diffuses something else than the classifier's noisy images."""
    source = generator_source(stage.generator)
    check = getattr(source, "classifier_problem", None)
    if check is not None and (problem := check(source.locate(stage.checkpoint))):
        raise UserError(f"checkpoint {stage.checkpoint} {problem}")
    find = getattr(source, "schedule", None)
    schedule = None if find is None else find(stage.checkpoint)
    if schedule is not None:
        require_levels(guidance, folder, schedule)


def _is_guided(generator: str) -> bool:
    return bool(getattr(generator_source(generator), "CLASSIFIER_GUIDED", False))
