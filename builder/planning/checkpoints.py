"""The networks of a stage: its own, and the weaker one that guidance may lead away from."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from builder.planning.recipe import StageRecipe
from generation.families import exemplar_source, fp8_source, generator_source, guided_source
from generation.generator import Generator
from generation.networks.fp8.running import fp8_problem
from generation.pretrained.training_data import knows_no_null
from release.errors import UserError


@dataclass(frozen=True)
class LocatedGuide:
    """A stage's guide, found: its absolute place and its hash."""

    place: Path
    sha256: str


def locate_checkpoints(chain: Sequence[StageRecipe]) -> tuple[list[Path], list[str]]:
    """Folder and hash of each stage's checkpoint; UserError for a missing or wrong one.

    A relative path starts where the command runs; workers, wherever they run, get an absolute one.
    """
    found = [_located(stage.generator, stage.checkpoint, stage.sha256) for stage in chain]
    return [place for place, _ in found], [sha256 for _, sha256 in found]


def require_prompts(
    chain: Sequence[StageRecipe], checkpoints: Sequence[Path | None], prompts: Sequence[str]
) -> None:
    """UserError if an image's prompt may be one that a stage's network never learned.

    checkpoints: None for one that is not at hand.
    """
    for stage, checkpoint in zip(chain, checkpoints, strict=True):
        find = getattr(generator_source(stage.generator), "known_prompts", None)
        known: Sequence[str] | None = None
        if find is not None and checkpoint is not None:
            known = find(checkpoint)
        if known is not None and (lacking := sorted(set(prompts) - set(known))):
            raise UserError(
                f"prompt {lacking[0]!r} is not among the {len(known)} that checkpoint "
                f"{stage.checkpoint} learned; known: {', '.join(map(repr, known[:12]))}"
            )


def locate_guides(
    chain: Sequence[StageRecipe], checkpoints: Sequence[Path]
) -> list[LocatedGuide | None]:
    """Each stage's guide, None where there is none; UserError for one that does not fit, and for
    guidance by a network that never learned without a class.

    checkpoints: places of the stages' own networks.
    """
    return [_guide_of(*one) for one in zip(chain, checkpoints, strict=True)]


def _guide_of(stage: StageRecipe, checkpoint: Path) -> LocatedGuide | None:
    if stage.guide is None:
        if stage.sampler.guidance != 1 and knows_no_null(checkpoint):
            raise UserError(
                f"checkpoint {stage.checkpoint} was told the class of every image it learned from, "
                f"so guidance = {stage.sampler.guidance:g} has nothing to lead away from: leave it "
                "1, give the stage a guide, or train with class_dropout or caption_dropout"
            )
        return None
    source = guided_source(stage.generator)
    place, sha256 = _located(stage.generator, stage.guide.checkpoint, stage.guide.sha256)
    problem = source.guide_problem(checkpoint, place)
    if problem is not None:
        raise UserError(f"guide {stage.guide.checkpoint} {problem}")
    return LocatedGuide(place, sha256)


def _located(generator: str, checkpoint: str, sha256: str | None) -> tuple[Path, str]:
    source = generator_source(generator)
    place = source.locate(checkpoint)
    found = source.sha256(place)
    if sha256 is not None and found != sha256:
        raise UserError(
            f"checkpoint {checkpoint} has the wrong hash: {found[:12]}… found, the "
            f"recipe wants {sha256[:12]}…; restore the file or correct the recipe"
        )
    return place.absolute(), found


def load_networks(stage: StageRecipe, checkpoint: Path, guide: Path | None = None) -> Generator:
    """The stage's model, in its precision, guided by the one in `guide` if there is one.

    UserError for a precision that this machine has not.
    """
    if stage.precision is not None:
        require_precision_here([stage])
        return fp8_source(stage.generator).load_fp8(checkpoint, stage.compile)
    if guide is None:
        return generator_source(stage.generator).load(checkpoint, stage.compile)
    return guided_source(stage.generator).load_guided(checkpoint, guide, stage.compile)


def require_precision(stages: Sequence[StageRecipe]) -> None:
    """UserError for a stage in fp8 whose generator has no such precision."""
    for stage in stages:
        if stage.precision is not None:
            fp8_source(stage.generator)


def require_exemplars(stages: Sequence[StageRecipe]) -> None:
    """UserError for a stage with exemplars whose generator takes none."""
    for stage in stages:
        if stage.exemplars is not None:
            exemplar_source(stage.generator)


def require_precision_here(stages: Sequence[StageRecipe]) -> None:
    """UserError for a stage in fp8 that this machine cannot run so."""
    for stage in stages:
        problem = None if stage.precision is None else fp8_problem()
        if problem is not None:
            raise UserError(
                f'the stage at {stage.resolution} px has precision = "fp8", which {problem}'
            )
