"""What `build-dataset --dry-run` prints."""

import json
import os
from collections.abc import Iterator, Sequence

from builder.builds.build import plan_build
from builder.builds.estimate import as_json as estimate_as_json
from builder.builds.estimate import as_lines, calibrate, estimate
from builder.planning.plan import BuildRequest, ShardPlan, plan_blocks, plan_shards, plan_stages
from builder.planning.recipe import Recipe, StageRecipe
from builder.standing.state import STATE_FILE
from release.classes.class_list import ClassEntry
from release.commands.command import say
from release.files.storage import ReleasePath, exists
from release.layout.hub_limits import planned_problem
from release.layout.markers import committed_records
from release.layout.origin import REGIMES


def print_plan(
    recipe: Recipe,
    chain: Sequence[StageRecipe],
    wanted: Sequence[ClassEntry],
    per_class: int,
    release: ReleasePath,
    as_json: bool,
) -> None:
    """What a build would make and take; at most a batch a stage is sampled, nothing is written.

    Nothing is fetched: a model that is not at hand stays where it is.
    """
    os.environ["HF_HUB_OFFLINE"] = "1"  # read when huggingface_hub is imported, later
    left = _left_to_make(recipe, chain, wanted, per_class, release)
    costs = calibrate(recipe, chain, wanted, _be_quiet if as_json else say)
    stages = estimate(left, costs)
    request = BuildRequest(tuple(c.wnid for c in wanted), per_class)
    blocks = plan_blocks(recipe, wanted, [request])
    images = len(wanted) * per_class
    unpublishable = planned_problem(len(blocks), len(chain), arrow=recipe.format == "arrow")
    plan = {
        "recipe": recipe.name,
        "classes": len(wanted),
        "per_class": per_class,
        "images": images,
        "shards_per_stage": len(blocks),
        "unpublishable": unpublishable,
        "license": recipe.license,
        "regime": recipe.regime,
        "stages": [
            {
                "resolution": stage.resolution,
                "generator": stage.generator,
                "checkpoint": stage.checkpoint,
                "network_evaluations": stage.sampler.network_evaluations,
                "images": images,
                "model": stage.model and stage.model.model_dump(),
                "regime": stage.regime or recipe.regime,
                "cost": stage.cost and stage.cost.model_dump(),
                "device_hours": stage.cost and images * stage.cost.seconds / 3600,
                "published": [score.model_dump() for score in stage.published],
            }
            for stage in chain
        ],
    }
    if as_json:
        print(json.dumps({**plan, "estimate": estimate_as_json(stages)}, indent=2))
        return
    print(f"{recipe.name}: {len(wanted):,} classes x {per_class:,} = {images:,} images a stage")
    for position, stage in enumerate(chain, start=1):
        print(
            f"  stage {position}: {stage.resolution:>4} px  {stage.generator}  {stage.checkpoint}  "
            f"{stage.sampler.method}, {stage.sampler.network_evaluations} evaluations an image, "
            f"{len(blocks):,} shards"
        )
        for line in _model_lines(stage, images):
            print(f"    {line}")
    for line in as_lines(stages):
        print(f"  {line}")
    if unpublishable is not None:
        print(f"  cannot be published on the Hub: {recipe.name} {unpublishable}")
    print(f"  regime {recipe.regime}: {REGIMES[recipe.regime]}")
    print(f"  licence: {recipe.license}. {recipe.license_note}".rstrip())


def _be_quiet(_: str) -> None:
    pass


def _model_lines(stage: StageRecipe, images: int) -> Iterator[str]:
    """What the recipe says of the stage's model, cost and published scores."""
    if stage.model is not None:
        model = stage.model
        yield f"model: {model.name}, {model.source}"
        yield f"licence: {model.license}. Images: {model.images}"
        if model.left_out:
            yield f"not applied: {model.left_out}"
    if stage.cost is not None:
        cost = stage.cost
        hours = images * cost.seconds / 3600
        yield (
            f"cost: {cost.seconds:g} s an image, {hours:,.1f} h in all on {cost.hardware}, "
            f"{cost.memory_gib:g} GiB of its memory ({cost.source})"
        )
    if stage.regime is not None:
        yield f"regime {stage.regime}: {REGIMES[stage.regime]}"
    if stage.sampler_source:
        yield f"sampler: {stage.sampler_source}"
    for score in stage.published:
        values = {"FID": score.fid, "IS": score.inception_score}
        numbers = ", ".join(f"{name} {value:g}" for name, value in values.items() if value)
        yield f"published: {numbers}; {score.settings} ({score.source})"


def _left_to_make(
    recipe: Recipe,
    chain: Sequence[StageRecipe],
    wanted: Sequence[ClassEntry],
    per_class: int,
    release: ReleasePath,
) -> list[ShardPlan]:
    """All shards, less those that `release` has already."""
    if exists(release / STATE_FILE):
        plan = plan_build(recipe, chain, wanted, per_class, release)
        done = committed_records(release, plan.jobs())
        return [shard for shard in plan.shards if shard.path not in done]
    request = BuildRequest(tuple(c.wnid for c in wanted), per_class)
    stages = plan_stages(recipe, chain, wanted, [""] * len(chain))  # hashes: only counts are asked
    return plan_shards(stages, plan_blocks(recipe, wanted, [request]))
