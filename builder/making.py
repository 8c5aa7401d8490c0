"""Building and importing as commands do: the folder is claimed, and progress is told.

`build-dataset` and `run-study` make their releases with these two functions. From here a build
reads downwards: `plan_build` (builder/builds/build.py), `run_builds` (builder/builds/run.py),
`run_jobs` (builder/cluster/engine.py), `run_job` (builder/cluster/worker.py), `build_shard`
(builder/shards/shard.py); it ends in `finish_release` (builder/builds/finish.py).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from builder.builds.build import build_release, plan_build
from builder.builds.run import Outcome, RunSettings
from builder.cluster.cluster import ClusterOptions
from builder.planning.batch_and_compile import Means
from builder.planning.checkpoints import require_precision_here
from builder.planning.gpu_memory import gpus_here
from builder.planning.recipe import Recipe, StageRecipe
from release.classes.class_list import ClassEntry
from release.commands.command import say
from release.commands.named_files import require_folder
from release.commands.progress import progress_bar
from release.errors import UserError
from release.files.storage import ReleasePath, release_path, require_no_secret
from release.images.crop_rules import MOST_SIDE, CropRule
from release.lease import claimed
from release.real_sources.opening import open_source
from release.real_sources.source import SourceName


@dataclass(frozen=True)
class Wanted:
    """What is to be built: `per_class` images of each of `chosen`, through the stages of `chain`.

    classes: the recipe's whole list, by which labels go. batches, compile: how its networks run,
    see builder/planning/batch_and_compile.py.
    """

    recipe: Recipe
    chain: Sequence[StageRecipe]
    classes: Sequence[ClassEntry]
    chosen: Sequence[ClassEntry]
    per_class: int
    batches: tuple[int, ...] | None = None
    compile: bool | None = None

    def means(self, cluster: ClusterOptions) -> Means:
        """What it is built on there."""
        gpus = () if cluster.foreign else gpus_here()
        return Means(gpus, cluster.workers, self.batches, self.compile)


def build_wanted(
    wanted: Wanted, release: ReleasePath, settings: RunSettings, *, quiet: bool
) -> Outcome:
    """Build it in `release`, or go on with what is there.

    UserError for a precision that this machine has not, where the images are made here.
    """
    if not settings.cluster.foreign:
        require_precision_here(wanted.chain)
    with claimed(release, settings.say):
        plan = plan_build(
            wanted.recipe,
            wanted.chain,
            wanted.chosen,
            wanted.per_class,
            release,
            wanted.classes,
            wanted.means(settings.cluster),
        )
        for resolution, execution in plan.state.execution.items():
            settings.say(
                f"{resolution} px: batches of {execution.batch}"
                f"{', compiled' if execution.compile else ''} ({execution.basis})"
            )
        with progress_bar(plan.images, wanted.recipe.name, "images", quiet=quiet) as advance:
            return build_release(plan, settings, lambda record: advance(record.planned))


def import_images(
    name: str,
    out: str | None,
    views: Sequence[int],
    crop: CropRule | None,
    settings: RunSettings,
    bad_images: Literal["stop", "skip"] = "stop",
    *,
    quiet: bool,
) -> tuple[Outcome, ReleasePath]:
    """Import what `name` means into `out`, by default releases/NAME; where it stands then.

    views: resolutions, ascending. crop: by default pad for fashion-mnist, else center-crop.
    """
    from builder.imports.release import all_views, import_real

    if not views or min(views) < 1 or max(views) > MOST_SIDE:
        given = ",".join(map(str, views))
        raise UserError(f"--views {given!r}: resolutions are at least 1 and at most {MOST_SIDE}")
    require_no_secret(name)  # it is recorded as the release's source
    if out is not None:
        _require_place(release_path(out), name, crop)
    source = open_source(name)
    for remark in source.remarks:
        say(f"{source.name}: {remark}")
    release = release_path(out or f"releases/{source.release}")
    if out is None:
        _require_place(release, name, crop)
    rule: CropRule = crop or ("pad" if source.name == "fashion-mnist" else "center-crop")
    images = sum(len(s.labels) for s in source.splits.values())
    decoding = replace(settings, cluster=settings.cluster.without_gpus())
    with claimed(release, settings.say):
        total = images * (1 + len(all_views(release, views)))
        with progress_bar(total, source.name, "images and views", quiet=quiet) as advance:
            outcome = import_real(
                name,
                release,
                views,
                rule,
                decoding,
                lambda record: advance(record.planned),
                bad_images,
            )
    return outcome, release


def _require_place(release: ReleasePath, name: str, crop: CropRule | None) -> None:
    """UserError where nothing of `name` may be imported, which is told before it is read."""
    from builder.imports.release import require_rule

    require_outside(release, SourceName.parse(name).name)
    if isinstance(release, Path):
        require_folder(release, "--out")
    require_rule(release, crop)


def require_outside(release: ReleasePath, source: str) -> None:
    """UserError for a release in its own source, which the next look at that would import."""
    names = (source, source.rpartition(":")[0])
    folder = next((Path(name) for name in names if name and Path(name).is_dir()), None)
    if folder is None or not isinstance(release, Path):
        return
    if release.resolve().is_relative_to(folder.resolve()):
        raise UserError(f"--out {release} is inside the real images in {folder}: name another")
