"""Building a release: a recipe is planned, a run makes what is missing, README and manifest end it.

plan_build → builder/builds/run.py → write_release.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from builder.accept import LocatedRule, StageFacts, locate_rule
from builder.builds.differences import stage_differences
from builder.builds.estimate import (
    StageEstimate,
    as_lines,
    estimate,
    measured_cost,
    total_hours,
    unmeasured_cost,
)
from builder.builds.finish import finish_release
from builder.builds.run import OnDone, Outcome, ReleaseJobs, RunSettings, run_builds
from builder.exemplars.fitting import fitting_exemplars
from builder.exemplars.located import LocatedExemplars
from builder.planning.batch_and_compile import AS_RECIPES_SAY, Execution, Means, Size, as_run
from builder.planning.checkpoints import (
    locate_checkpoints,
    locate_guides,
    require_exemplars,
    require_precision,
    require_prompts,
)
from builder.planning.classifiers import with_classifiers
from builder.planning.device_cost import stated_cost
from builder.planning.gpu_memory import require_memory
from builder.planning.labels import require_meaningful_labels
from builder.planning.plan import (
    Block,
    BuildRequest,
    ShardPlan,
    StagePlan,
    accept_identity,
    asked_for,
    plan_blocks,
    plan_shards,
    plan_stages,
    stage_encodings,
)
from builder.planning.prompts import choose_prompts
from builder.planning.recipe import Recipe, StageRecipe
from builder.planning.regime import require_regime
from builder.planning.sampling import require_intervals, require_methods, require_sizes
from builder.shards.shard import ShardJob
from builder.state import SyntheticState, read_state
from generation.pretrained.finetuned import fine_tuned
from release.classes.class_list import ClassEntry, load_classes
from release.errors import UserError
from release.files.storage import ReleasePath, release_name
from release.layout.manifest import Manifest, ShardRecord
from release.layout.shard_files import FORMAT_NAMES

SIDECARS_READ = 50  # enough to tell what a shard takes


@dataclass(frozen=True)
class BuildPlan:
    """All of a build: what there is to make, and what of it is done."""

    recipe: Recipe
    classes: tuple[ClassEntry, ...]
    stages: tuple[StagePlan, ...]
    state: SyntheticState
    shards: tuple[ShardPlan, ...]
    checkpoints: tuple[Path, ...]
    release: ReleasePath

    @property
    def images(self) -> int:
        return sum(shard.block.rows for shard in self.shards)

    def release_jobs(self) -> ReleaseJobs:
        """What a run is asked for: every shard, then README and manifest."""
        return ReleaseJobs(
            self.release, self.state, self.jobs(), finish=partial(write_release, self)
        )

    def jobs(self) -> list[ShardJob]:
        """Every shard with what a worker needs to make it, parents before children."""
        checkpoint = dict(zip((s.fingerprint for s in self.stages), self.checkpoints, strict=True))
        return [
            ShardJob(
                plan=shard,
                release_seed=self.recipe.seed,
                classes=self.classes,
                checkpoint=checkpoint[shard.stage.fingerprint],
                release=self.release.absolute(),
            )
            for shard in self.shards
        ]


def locate_rules(
    chain: Sequence[StageRecipe], checkpoints: Sequence[Path], class_ids: tuple[str, ...]
) -> list[LocatedRule | None]:
    """Each stage's accept rule, None where there is none; UserError for one that does not fit."""
    return [
        locate_rule(
            stage.accept.rule,
            stage.accept.settings,
            StageFacts(stage.resolution, class_ids, checkpoint),
        )
        if stage.accept and stage.accept.rule
        else None
        for stage, checkpoint in zip(chain, checkpoints, strict=True)
    ]


def plan_build(
    recipe: Recipe,
    chain: Sequence[StageRecipe],
    wanted: Sequence[ClassEntry],
    per_class: int,
    release: ReleasePath,
    classes: Sequence[ClassEntry] | None = None,
    means: Means = AS_RECIPES_SAY,
) -> BuildPlan:
    """Plan the release in `release`, on top of what earlier requests made there.

    classes: the recipe's list, by default read from where the recipe says. means: what stages that
    are not begun run on.
    Raises UserError if the folder holds another release.
    """
    classes = tuple(classes or load_classes(recipe.classes))
    earlier = read_state(release, SyntheticState)
    requests = _requests(earlier, BuildRequest(tuple(c.wnid for c in wanted), per_class))
    blocks = plan_blocks(recipe, classes, requests)
    chain = _keep_stages(recipe, chain, earlier)
    chain, execution = chain_as_run(chain, earlier, blocks, means)
    prompts = choose_prompts(recipe.prompts, recipe.seed, classes)
    chain = with_classifiers(chain, classes, prompts)
    recipe = recipe.model_copy(update={"stages": _replaced(recipe.stages, chain)})
    _require_supported(chain)
    folders, hashes = locate_checkpoints(chain)
    require_sizes(chain, folders)
    require_prompts(chain, folders, prompts.of_all(asked_for(requests, classes)))
    guides = locate_guides(chain, folders)
    require_regime(recipe, chain, folders, guides)
    exemplars = _exemplars_of(chain[0], folders[0], classes)
    rules = locate_rules(chain, folders, tuple(c.wnid for c in classes))
    require_meaningful_labels(chain, folders, classes)
    encodings = _keep_encodings(release, recipe, chain, earlier)
    stages = plan_stages(recipe, chain, classes, hashes, rules, encodings, guides, exemplars)
    state = _state(recipe, stages, requests, earlier, execution)
    if earlier:
        _require_same_release(
            release,
            earlier,
            state,
            lambda: stage_differences(release, recipe.seed, classes, stages),
        )
    return BuildPlan(
        recipe=recipe,
        classes=classes,
        stages=stages,
        state=state,
        shards=tuple(plan_shards(stages, blocks)),
        checkpoints=tuple(folders),
        release=release,
    )


def _require_supported(chain: Sequence[StageRecipe]) -> None:
    """UserError for a stage that asks of its generator, or of this machine, what it cannot do."""
    require_precision(chain)
    require_exemplars(chain)
    require_methods(chain)
    require_intervals(chain)
    require_memory(chain)


def _exemplars_of(
    stage: StageRecipe, checkpoint: Path, classes: Sequence[ClassEntry]
) -> LocatedExemplars | None:
    """What a first stage begins from, None where that is noise; UserError if it does not fit."""
    if stage.exemplars is None:
        return None
    class_ids = [entry.wnid for entry in classes]
    return fitting_exemplars(
        stage.exemplars, stage.generator, checkpoint, stage.resolution, class_ids
    )


def _requests(earlier: SyntheticState | None, request: BuildRequest) -> tuple[BuildRequest, ...]:
    """All that were made of the release, this one last if it is new."""
    made = earlier.requests if earlier else ()
    return made if request in made else (*made, request)


def _state(
    recipe: Recipe,
    stages: Sequence[StagePlan],
    requests: tuple[BuildRequest, ...],
    earlier: SyntheticState | None,
    execution: dict[str, Execution],
) -> SyntheticState:
    return SyntheticState(
        name=recipe.name,
        seed=recipe.seed,
        shard=recipe.shard.model_dump(),
        stages={str(s.recipe.resolution): s.fingerprint for s in stages},
        requests=requests,
        encodings={str(s.recipe.resolution): s.encoding for s in stages},
        format=recipe.format,
        environments=earlier.environments if earlier else (),
        execution=execution,
    )


def chain_as_run(
    chain: Sequence[StageRecipe],
    state: SyntheticState | None,
    blocks: Sequence[Block],
    means: Means,
) -> tuple[list[StageRecipe], dict[str, Execution]]:
    """The stages as they run in a release of that state, and how; see `as_run`."""
    begun, kept = (state.stages, state.execution) if state else ({}, {})
    return as_run(chain, begun, kept, Size.of(blocks), means)


def _replaced(
    stages: Sequence[StageRecipe], chain: Sequence[StageRecipe]
) -> tuple[StageRecipe, ...]:
    """The recipe's stages, those of `chain` as they are there."""
    known = {stage.resolution: stage for stage in chain}
    return tuple(known.get(stage.resolution, stage) for stage in stages)


def _keep_stages(
    recipe: Recipe, chain: Sequence[StageRecipe], state: SyntheticState | None
) -> Sequence[StageRecipe]:
    """`chain`, made as long as the release already is: what it has is kept and grows with it."""
    if state is None:
        return chain
    highest = max(int(resolution) for resolution in state.stages)
    longest = [stage for stage in recipe.stages if stage.resolution <= highest]
    return longest if len(longest) > len(chain) else chain


def _keep_encodings(
    release: ReleasePath,
    recipe: Recipe,
    chain: Sequence[StageRecipe],
    state: SyntheticState | None,
) -> list[str]:
    """Each stage's encoding; what the release ended at stays as it is where it becomes a parent.

    UserError if that is lossy.
    """
    encodings = list(stage_encodings(recipe, chain))
    for position, stage in enumerate(chain[:-1]):
        kept = state.encodings.get(str(stage.resolution)) if state else None
        if kept == "jpeg":
            raise UserError(
                f"{release} ends at {stage.resolution} px in JPEG, and a parent must be lossless: "
                f"build {chain[-1].resolution} px in another --out, or with encoding webp-lossless "
                "or png from the start"
            )
        encodings[position] = kept or encodings[position]
    return encodings


def _require_same_release(
    release: ReleasePath,
    old: SyntheticState,
    new: SyntheticState,
    differences: Callable[[], str],
) -> None:
    """UserError unless `old`, what the folder holds, can grow into `new`.

    differences: tells in which settings their stages differ.
    """
    if old.format != new.format:
        raise UserError(
            f"{release} holds {FORMAT_NAMES[old.format]} files, asked for is "
            f"{FORMAT_NAMES[new.format]}: give --format {old.format}, or name another --out"
        )
    changed = [int(r) for r, print_ in old.stages.items() if new.stages.get(r) != print_]
    if changed:
        raise UserError(
            f"{release} holds another release: {old.name}, whose stage {min(changed)} was made "
            f"with other settings{differences()}; name another --out or use the same recipe"
        )
    if old.shard != new.shard:
        raise UserError(
            f"{release} was built with shards of {old.shard}; the recipe now says {new.shard}: "
            "name another --out or restore it"
        )


def build_release(plan: BuildPlan, settings: RunSettings, on_done: OnDone) -> Outcome:
    """Make what is missing, then write README and manifest. Rerun it to go on."""

    def announce(done: Mapping[str, ShardRecord]) -> None:
        rest = estimate_rest(plan, done)
        if total_hours(rest) is not None:  # else the progress bar tells, as soon as it can
            for line in as_lines(rest):
                settings.say(line)

    (outcome,) = run_builds([replace(plan.release_jobs(), announce=announce)], settings, on_done)
    if outcome.manifest is not None or not outcome.records:
        return outcome
    return replace(outcome, manifest=write_release(plan, outcome))


def write_release(plan: BuildPlan, outcome: Outcome) -> Manifest:
    """README and manifest of the release that `plan` made, as far as `outcome` says."""
    manifest = Manifest(
        name=release_name(plan.release),
        kind="synthetic",
        dataset=plan.recipe.dataset,
        regime=plan.recipe.regime,
        license=plan.recipe.license,
        classes=plan.classes,
        origin=_origin(plan) | outcome.origin(),
        shards=outcome.records,
    )
    return finish_release(plan.release, manifest)


def estimate_rest(plan: BuildPlan, done: Mapping[str, ShardRecord]) -> list[StageEstimate]:
    """What is left, at the cost of what is done, else at the recipe's stated cost."""
    costs = {}
    for stage in plan.stages:
        config = str(stage.recipe.resolution)
        made = [r for r in done.values() if r.config == config][-SIDECARS_READ:]
        costs[stage.recipe.resolution] = measured_cost(plan.release, made) or unmeasured_cost(
            stage.recipe, stage.encoding, stated_cost(stage.recipe), "--dry-run tells it"
        )
    return estimate([s for s in plan.shards if s.path not in done], costs)


def _base_of(checkpoint: Path) -> dict[str, dict[str, str]]:
    """What a fine-tuned checkpoint, a folder or the file in it, came from; nothing of others."""
    told = fine_tuned(checkpoint if checkpoint.is_dir() else checkpoint.parent)
    if told is None:
        return {}
    return {"fine_tuned_from": {"checkpoint": told.base.checkpoint, "sha256": told.base.sha256}}


def _guide_of(stage: StagePlan) -> dict[str, dict[str, str]]:
    """The network that guidance led away from; nothing where there is none."""
    if stage.guide is None or stage.recipe.guide is None:
        return {}
    named = stage.recipe.guide.checkpoint
    return {"guide": {"checkpoint": named, "sha256": stage.guide.sha256}}


def _exemplar_origin(stage: StagePlan) -> dict[str, dict[str, Any]]:
    """The real images that it began from; nothing where that was noise."""
    if stage.exemplars is None or stage.recipe.exemplars is None:
        return {}
    return {"exemplars": stage.exemplars.origin(stage.recipe.exemplars.release)}


def _execution_of(stage: StagePlan, state: SyntheticState) -> dict[str, dict[str, Any]]:
    """How its networks ran, and why; nothing where that was as the recipe says."""
    execution = state.execution.get(str(stage.recipe.resolution))
    return {} if execution is None else {"execution": asdict(execution)}


def _origin(plan: BuildPlan) -> dict[str, Any]:
    return {
        "recipe": plan.recipe.model_dump(mode="json", by_alias=True),
        "stages": [
            {
                "resolution": s.recipe.resolution,
                "generator": s.recipe.generator,
                "checkpoint": s.recipe.checkpoint,
                "checkpoint_sha256": s.checkpoint_sha256,
                **_base_of(checkpoint),
                **_guide_of(s),
                **_exemplar_origin(s),
                **_execution_of(s, plan.state),
                **({} if s.recipe.precision is None else {"precision": s.recipe.precision}),
                "sampler": s.recipe.sampler.model_dump(),
                "encoding": s.encoding,
                "fingerprint": s.fingerprint,
                **accept_identity(s.recipe, s.rule),
            }
            for s, checkpoint in zip(plan.stages, plan.checkpoints, strict=True)
        ],
        "requests": [
            {"classes": list(r.classes), "per_class": r.per_class} for r in plan.state.requests
        ],
    }
