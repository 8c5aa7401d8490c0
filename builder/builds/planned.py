"""The plan of a finished synthetic release, from its manifest alone: no weights, no class file."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from builder.exemplars.located import LocatedExemplars, stated_exemplars
from builder.planning.batch_and_compile import Execution
from builder.planning.checkpoints import LocatedGuide
from builder.planning.plan import (
    BuildRequest,
    ShardPlan,
    StagePlan,
    plan_blocks,
    plan_shards,
    plan_stages,
    stage_encodings,
)
from builder.planning.recipe import Recipe, StageRecipe
from builder.state import SyntheticState
from release.environment import Environment
from release.errors import UserError
from release.layout.manifest import Manifest


@dataclass(frozen=True)
class PlannedRelease:
    """What the manifest's recipe and requests ask for.

    stages: with the fingerprints that the manifest states; derived: as they follow from the recipe,
    None from the first stage on whose accept rule would have to be at hand.
    """

    recipe: Recipe
    stages: tuple[StagePlan, ...]
    derived: tuple[str | None, ...]
    requests: tuple[BuildRequest, ...]
    shards: tuple[ShardPlan, ...]

    def per_class(self) -> dict[str, int]:
        """Images asked for at each stage, by class id."""
        wanted: dict[str, int] = {}
        for request in self.requests:
            for wnid in request.classes:
                wanted[wnid] = max(wanted.get(wnid, 0), request.per_class)
        return wanted


def stated_state(manifest: Manifest, planned: PlannedRelease) -> SyntheticState:
    """What build.json says of the finished release, as far as it has not grown since."""
    return SyntheticState(
        name=planned.recipe.name,
        seed=planned.recipe.seed,
        shard=planned.recipe.shard.model_dump(),
        stages={str(s.recipe.resolution): s.fingerprint for s in planned.stages},
        requests=planned.requests,
        format=planned.recipe.format,
        encodings={str(s.recipe.resolution): s.encoding for s in planned.stages},
        environments=stated_environments(manifest),
        execution=_stated_executions(manifest),
    )


def stated_environments(manifest: Manifest) -> tuple[Environment, ...]:
    """What the release was made with, by its manifest."""
    return tuple(
        Environment(e["device"], tuple(sorted(e["versions"].items())))
        for e in manifest.origin.get("environments", ())
    )


def _stated_executions(manifest: Manifest) -> dict[str, Execution]:
    """Of the stages that did not run as the recipe says."""
    stages = manifest.origin.get("stages", ())
    return {
        str(stage["resolution"]): Execution(**stage["execution"])
        for stage in stages
        if "execution" in stage
    }


def _stated_guide(stage: Mapping[str, Any]) -> LocatedGuide | None:
    """What the manifest says of a stage's guide, by its name in the recipe."""
    guide = stage.get("guide")
    return None if guide is None else LocatedGuide(Path(guide["checkpoint"]), guide["sha256"])


def _stated_exemplars(stage: StageRecipe, made: Mapping[str, Any]) -> LocatedExemplars | None:
    """What the manifest says that a first stage began from; ValueError if its recipe differs."""
    if (stage.exemplars is None) != ("exemplars" not in made):
        raise ValueError("of exemplars its recipe and its stage say different things")
    return stated_exemplars(made["exemplars"]) if stage.exemplars else None


def planned_release(manifest: Manifest) -> PlannedRelease:
    """Plan again what the manifest says it holds; UserError if its origin does not say enough."""
    try:
        recipe = Recipe.model_validate(manifest.origin["recipe"])
        made = manifest.origin["stages"]
        if not made or not manifest.origin["requests"]:
            raise ValueError("it names no stage or no request")
        chain = [s for s in recipe.stages if s.resolution in {m["resolution"] for m in made}]
        hashes = [str(stage["checkpoint_sha256"]) for stage in made]
        encodings = [
            str(stage.get("encoding", encoding))
            for stage, encoding in zip(made, stage_encodings(recipe, chain), strict=True)
        ]
        guides = [_stated_guide(stage) for stage in made]
        derived = plan_stages(
            recipe,
            chain,
            manifest.classes,
            hashes,
            encodings=encodings,
            guides=guides,
            exemplars=_stated_exemplars(chain[0], made[0]),
        )
        requests = tuple(
            BuildRequest(tuple(r["classes"]), r["per_class"]) for r in manifest.origin["requests"]
        )
        stages = tuple(
            replace(stage, fingerprint=str(m["fingerprint"]))
            for stage, m in zip(derived, made, strict=True)
        )
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"the manifest of {manifest.name} does not hold the recipe of a synthetic release: "
            f"{' '.join(str(error).split())}"
        ) from None
    try:
        blocks = plan_blocks(recipe, manifest.classes, requests)
    except UserError as error:
        raise UserError(f"the manifest of {manifest.name}: {error}") from None
    shards = tuple(plan_shards(stages, blocks))
    ruled = [
        stage.recipe.accept is not None and bool(stage.recipe.accept.rule) for stage in derived
    ]
    fingerprints = tuple(
        None if any(ruled[: position + 1]) else stage.fingerprint
        for position, stage in enumerate(derived)
    )
    return PlannedRelease(recipe, stages, fingerprints, requests, shards)
