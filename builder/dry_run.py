"""What `build-dataset --dry-run` prints."""

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

from builder.builds.build import chain_as_run, plan_build
from builder.builds.estimate import as_json as estimate_as_json
from builder.builds.estimate import as_lines, calibrate, estimate
from builder.exemplars.recipe import ExemplarRecipe
from builder.making import Wanted
from builder.planning.batch_and_compile import AS_RECIPES_SAY, Means, Size, batch_line
from builder.planning.checkpoints import require_exemplars
from builder.planning.device_cost import (
    DEFAULT_DEVICE,
    Device,
    DeviceCost,
    device_cost,
    evaluations_of,
)
from builder.planning.hub_limits import planned_problem
from builder.planning.model_facts import ModelFacts
from builder.planning.plan import (
    Block,
    BuildRequest,
    ShardPlan,
    plan_blocks,
    plan_shards,
    plan_stages,
)
from builder.planning.recipe import StageRecipe
from builder.planning.sampling import require_methods
from builder.state import STATE_FILE, SyntheticState, read_state
from generation.families import generator_source
from release.commands.command import say
from release.commands.duration import duration
from release.errors import UserError
from release.files.storage import ReleasePath, exists, release_path
from release.layout.manifest import read_manifest
from release.layout.origin import REGIMES
from release.layout.shard_commit import committed_records

Costs = Mapping[int, DeviceCost | None]  # by resolution


NEEDED = [name for name, field in ModelFacts.model_fields.items() if field.is_required()]


def print_plan(
    wanted: Wanted,
    release: ReleasePath,
    as_json: bool,
    device: Device = DEFAULT_DEVICE,
    means: Means = AS_RECIPES_SAY,
) -> None:
    """What a build would make and take; at most a batch a stage is sampled, nothing is written.

    Nothing is fetched: a model that is not at hand stays where it is. device: the GPU that hours
    are told of, by the arithmetic of the networks. means: what it would be built on.
    """
    os.environ["HF_HUB_OFFLINE"] = "1"  # read when huggingface_hub is imported, later
    require_exemplars(wanted.chain)
    require_methods(wanted.chain)
    request = BuildRequest(tuple(c.wnid for c in wanted.chosen), wanted.per_class)
    blocks = plan_blocks(wanted.recipe, wanted.chosen, [request])
    arrow = wanted.recipe.format == "arrow"
    unpublishable = planned_problem(len(blocks), len(wanted.chain), arrow=arrow)
    wanted = _as_run(wanted, blocks, release, means)
    left = _left_to_make(wanted, blocks, release)
    say_so = _be_quiet if as_json else say
    costs = {stage.resolution: device_cost(stage, device) for stage in wanted.chain}
    measured = calibrate(
        wanted.recipe, wanted.chain, wanted.chosen, say_so, lambda stage: costs[stage.resolution]
    )
    stages = estimate(left, measured)
    if as_json:
        plan = _as_json(wanted, len(blocks), costs) | {"unpublishable": unpublishable}
        print(json.dumps({**plan, "estimate": estimate_as_json(stages)}, indent=2))
        return
    lines = _lines(wanted, Size.of(blocks), len(blocks), costs, device)
    for line in (*lines, *(f"  {line}" for line in as_lines(stages))):
        print(line)
    recipe = wanted.recipe
    if unpublishable is not None:
        print(f"  cannot be published on the Hub: {recipe.name} {unpublishable}")
    print(f"  regime {recipe.regime}: {REGIMES[recipe.regime]}")
    print(f"  licence: {recipe.license}. {recipe.license_note}".rstrip())


def _as_json(wanted: Wanted, shards: int, costs: Costs) -> dict[str, Any]:
    """shards: of a stage."""
    recipe, images = wanted.recipe, len(wanted.chosen) * wanted.per_class
    return {
        "recipe": recipe.name,
        "classes": len(wanted.chosen),
        "per_class": wanted.per_class,
        "images": images,
        "shards_per_stage": shards,
        "license": recipe.license,
        "regime": recipe.regime,
        "stages": [
            {
                "resolution": stage.resolution,
                "generator": stage.generator,
                "checkpoint": stage.checkpoint,
                **({} if stage.guide is None else {"guide": stage.guide.checkpoint}),
                "batch": stage.batch,
                "compile": stage.compile,
                **({} if stage.precision is None else {"precision": stage.precision}),
                **_exemplars_json(stage),
                "network_evaluations": (found := evaluations_of(stage)) and found.total,
                "images": images,
                "model": stage.model and stage.model.model_dump(),
                "regime": stage.regime or recipe.regime,
                "cost": stage.cost and stage.cost.model_dump(),
                **_device_json(costs[stage.resolution], images),
                "published": [score.model_dump() for score in stage.published],
            }
            for stage in wanted.chain
        ],
    }


def _lines(wanted: Wanted, size: Size, shards: int, costs: Costs, device: Device) -> Iterator[str]:
    """For people, stage by stage; shards: of each."""
    classes, per_class = len(wanted.chosen), wanted.per_class
    images = classes * per_class
    yield f"{wanted.recipe.name}: {classes:,} classes x {per_class:,} = {images:,} images a stage"
    for position, stage in enumerate(wanted.chain, start=1):
        guide = "" if stage.guide is None else f"guided by {stage.guide.checkpoint}  "
        yield (
            f"  stage {position}: {stage.resolution:>4} px  {stage.generator}  {stage.checkpoint}  "
            f"{guide}"
            f"{stage.sampler.method}, {_evaluations(stage)}, "
            f"{shards:,} shards"
        )
        for line in _model_lines(stage, images, costs[stage.resolution]):
            yield f"    {line}"
        yield f"    {batch_line(stage, size, device.gpu)}"


def _evaluations(stage: StageRecipe) -> str:
    found = evaluations_of(stage)
    if found is None:
        return "evaluations as its checkpoint's schedule tells"
    return f"{found.total} evaluations an image"


def _be_quiet(_: str) -> None:
    pass


def _device_json(cost: DeviceCost | None, images: int) -> dict[str, Any]:
    """device_hours: of `device`; None where they are not known."""
    return {
        "device_hours": cost and images * cost.seconds / 3600,
        "device": cost and cost.hardware,
        "work": cost and cost.work and asdict(cost.work),
    }


def _model_lines(stage: StageRecipe, images: int, cost: DeviceCost | None) -> Iterator[str]:
    """Whether its weights are here; what the recipe says of its model, cost and scores."""
    yield f"weights: {_weights(stage)}"
    if stage.exemplars is not None:
        yield f"begins from real images: {_exemplars(stage.exemplars)}"
    if stage.model is None:
        yield f"model: not said; render-card needs [stage.model]: {', '.join(NEEDED)}"
    else:
        model = stage.model
        yield f"model: {model.name}, {model.source}"
        yield f"licence: {model.license}. Images: {model.images}"
        if model.left_out:
            yield f"not applied: {model.left_out}"
    if stage.precision is not None and stage.model is not None:
        yield f"precision: {stage.precision}, as its authors publish it: {stage.model.fp8}"
    if cost is not None:
        hours = images * cost.seconds / 3600
        yield f"cost: {cost.seconds:.3g} s an image, {duration(hours)} in all on {cost.hardware}"
        yield f"  {cost.basis}"
    if stage.cost is not None:
        yield f"memory: {stage.cost.memory_gib:g} GiB of the device's ({stage.cost.source})"
    if stage.regime is not None:
        yield f"regime {stage.regime}: {REGIMES[stage.regime]}"
    if stage.sampler_source:
        yield f"sampler: {stage.sampler_source}"
    for score in stage.published:
        values = {"FID": score.fid, "IS": score.inception_score}
        numbers = ", ".join(f"{name} {value:g}" for name, value in values.items() if value)
        yield f"published: {numbers}; {score.settings} ({score.source})"


def _exemplars_json(stage: StageRecipe) -> dict[str, Any]:
    return {} if stage.exemplars is None else {"exemplars": stage.exemplars.model_dump()}


def _exemplars(asked: ExemplarRecipe) -> str:
    """Which they are, and whether their release is here."""
    told = (
        f"{asked.per_class:,} of each class of {asked.release}, of which "
        f"{asked.strength:.0%} of the steps are made"
    )
    try:
        read_manifest(release_path(asked.release))
    except UserError as error:
        return f"{told}; not here: {error}"
    return told


def _weights(stage: StageRecipe) -> str:
    """Where they stand on this machine, or what to do about it. Nothing is fetched."""
    try:
        places = map(generator_source(stage.generator).locate, stage.checkpoints)
        return f"here, {' and '.join(map(str, places))}"
    except UserError as error:
        return f"not here: {error}"


def _as_run(wanted: Wanted, blocks: Sequence[Block], release: ReleasePath, means: Means) -> Wanted:
    """With the stages as a build there would run them."""
    begun = exists(release / STATE_FILE)
    state = read_state(release, SyntheticState) if begun else None
    chain, _ = chain_as_run(wanted.chain, state, blocks, means)
    return replace(wanted, chain=chain)


def _left_to_make(wanted: Wanted, blocks: Sequence[Block], release: ReleasePath) -> list[ShardPlan]:
    """All shards of `blocks`, or those that `release` lacks where it was begun."""
    recipe, chain = wanted.recipe, wanted.chain
    if exists(release / STATE_FILE):
        plan = plan_build(recipe, chain, wanted.chosen, wanted.per_class, release, wanted.classes)
        done = committed_records(release, plan.jobs())
        return [shard for shard in plan.shards if shard.path not in done]
    hashes = [""] * len(chain)  # only counts are asked
    return plan_shards(plan_stages(recipe, chain, wanted.chosen, hashes), blocks)
