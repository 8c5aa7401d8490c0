"""Building a release: from a recipe to finished shards, manifest and README."""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from builder.commit import make_release_folder, remove_temporaries, write_atomically
from builder.engine import Job, local_cluster, run_jobs
from builder.manifest import Manifest, ShardRecord
from builder.plan import (
    BuildRequest,
    ShardPlan,
    StagePlan,
    plan_blocks,
    plan_shards,
    plan_stages,
)
from builder.recipe import Recipe, StageRecipe
from builder.shard import ShardJob
from generation.classes import ClassEntry, load_classes
from generation.errors import UserError
from generation.generators import generator_source

STATE_FILE = "build.json"  # what the folder is a release of; written before the first shard


@dataclass(frozen=True)
class BuildPlan:
    """All of a build: what there is to make, and what of it is done."""

    recipe: Recipe
    classes: tuple[ClassEntry, ...]
    stages: tuple[StagePlan, ...]
    requests: tuple[BuildRequest, ...]
    shards: tuple[ShardPlan, ...]
    checkpoints: tuple[Path, ...]
    release: Path

    @property
    def images(self) -> int:
        return sum(shard.block.rows for shard in self.shards)

    def jobs(self) -> list[ShardJob]:
        """Every shard with what a worker needs to make it, parents before children."""
        checkpoint = dict(zip((s.fingerprint for s in self.stages), self.checkpoints, strict=True))
        return [
            ShardJob(
                plan=shard,
                release_seed=self.recipe.seed,
                classes=self.classes,
                checkpoint=checkpoint[shard.stage.fingerprint],
                release=self.release,
            )
            for shard in self.shards
        ]


def locate_checkpoints(chain: Sequence[StageRecipe]) -> tuple[list[Path], list[str]]:
    """Folder and hash of each stage's checkpoint; UserError for a missing or wrong one."""
    folders, hashes = [], []
    for stage in chain:
        source = generator_source(stage.generator)
        folder = source.locate(stage.checkpoint)
        found = source.sha256(folder)
        if stage.sha256 is not None and found != stage.sha256:
            raise UserError(
                f"checkpoint {stage.checkpoint} has the wrong hash: {found[:12]}… found, the "
                f"recipe wants {stage.sha256[:12]}…; restore the file or correct the recipe"
            )
        folders.append(folder)
        hashes.append(found)
    return folders, hashes


def plan_build(
    recipe: Recipe,
    chain: Sequence[StageRecipe],
    wanted: Sequence[ClassEntry],
    per_class: int,
    release: Path,
) -> BuildPlan:
    """Plan the release in `release`, on top of what earlier requests made there.

    Raises UserError if the folder holds another release.
    """
    classes = load_classes(recipe.classes)
    folders, hashes = locate_checkpoints(chain)
    stages = plan_stages(recipe, chain, classes, hashes)
    request = BuildRequest(tuple(c.wnid for c in wanted), per_class)
    requests = _earlier_requests(release, stages)
    if request not in requests:
        requests = (*requests, request)
    blocks = plan_blocks(recipe, classes, requests)
    return BuildPlan(
        recipe=recipe,
        classes=classes,
        stages=stages,
        requests=requests,
        shards=tuple(plan_shards(stages, blocks)),
        checkpoints=tuple(folders),
        release=release,
    )


def _earlier_requests(release: Path, stages: Sequence[StagePlan]) -> tuple[BuildRequest, ...]:
    """The requests the folder was built for; UserError if it holds something else."""
    state = release / STATE_FILE
    if not state.exists():
        if release.is_dir() and any(release.iterdir()):
            raise UserError(f"{release} is not empty and holds no release; name another --out")
        return ()
    try:
        content = json.loads(state.read_text())
    except ValueError as error:
        raise UserError(f"{state} cannot be read: {error}; restore it or remove it") from None
    ours = {str(s.recipe.resolution): s.fingerprint for s in stages}
    for resolution, fingerprint in content["stages"].items():
        if ours.get(resolution, fingerprint) != fingerprint:
            raise UserError(
                f"{release} holds another release: {content['name']}, whose stage {resolution} "
                "was made with other settings; name another --out or use the same recipe"
            )
    return tuple(BuildRequest(tuple(r["classes"]), r["per_class"]) for r in content["requests"])


def write_state(plan: BuildPlan) -> None:
    """Say what the folder is going to hold, before the first shard is made."""
    make_release_folder(plan.release)
    path = plan.release / STATE_FILE
    known = json.loads(path.read_text())["stages"] if path.exists() else {}
    content = {
        "name": plan.recipe.name,
        "stages": known | {str(s.recipe.resolution): s.fingerprint for s in plan.stages},
        "requests": [asdict(request) for request in plan.requests],
    }
    write_atomically(path, (json.dumps(content, indent=1, sort_keys=True) + "\n").encode())


def build_release(
    plan: BuildPlan, workers: int | None, on_done: Callable[[ShardRecord], None]
) -> Manifest:
    """Make what is missing, then write README and manifest. Rerun it to go on."""
    write_state(plan)
    records = run_missing(plan.jobs(), workers, on_done)
    manifest = Manifest(
        name=plan.release.resolve().name,
        kind="synthetic",
        dataset=plan.recipe.dataset,
        regime=plan.recipe.regime,
        license=plan.recipe.license,
        classes=plan.classes,
        origin=_origin(plan),
        shards=records,
    )
    finish_release(plan.release, manifest)
    return manifest


def run_missing(
    jobs: Sequence[Job], workers: int | None, on_done: Callable[[ShardRecord], None]
) -> tuple[ShardRecord, ...]:
    """Do the jobs that no earlier run has committed; records of all, in the order of `jobs`."""
    done = {job.path: record for job in jobs if (record := job.committed()) is not None}
    for record in done.values():
        on_done(record)
    missing = [job for job in jobs if job.path not in done]
    if missing:
        with local_cluster(workers, most=len(missing)) as client:
            for record in run_jobs(client, missing):
                done[record.path] = record
                on_done(record)
    return tuple(done[job.path] for job in jobs)


def finish_release(release: Path, manifest: Manifest) -> None:
    """Write README, then manifest, unless they stand there already; leave no litter."""
    remove_temporaries(release)
    if (release / "README.md").is_file() and manifest.is_written(release):
        return
    from builder.readme import write_readme

    write_readme(release, manifest)
    manifest.write(release)


def _origin(plan: BuildPlan) -> dict[str, Any]:
    return {
        "recipe": plan.recipe.model_dump(mode="json", by_alias=True),
        "stages": [
            {
                "resolution": s.recipe.resolution,
                "generator": s.recipe.generator,
                "checkpoint": s.recipe.checkpoint,
                "checkpoint_sha256": s.checkpoint_sha256,
                "sampler": s.recipe.sampler.model_dump(),
                "fingerprint": s.fingerprint,
            }
            for s in plan.stages
        ],
        "requests": [{"classes": list(r.classes), "per_class": r.per_class} for r in plan.requests],
    }
