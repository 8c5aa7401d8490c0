"""The command `build-dataset`."""

import glob
import json
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from builder.builds.build import build_release, plan_build
from builder.builds.run import Outcome, RunSettings
from builder.cluster.cluster import ClusterOptions
from builder.dry_run import print_plan
from builder.planning.recipe import BUILTIN, Recipe, load_recipe
from builder.standing.lease import claimed
from release.classes.class_list import load_classes, select_classes
from release.commands.command import run_command, say
from release.commands.options import Json, Scheduler, SchedulerFile, TlsCa, TlsCert, TlsKey, Workers
from release.commands.progress import progress_bar
from release.errors import UserError
from release.files.storage import (
    ReleasePath,
    absolute_if_file,
    absolute_if_folder,
    release_path,
    require_no_secret,
)
from release.images.views import MOST_SIDE, CropRule
from release.layout.manifest import Manifest
from release.layout.shard_files import ShardFormat, leading_split, shard_format, shard_name
from release.layout.training_views import lagging
from release.real_sources.source import SourceName

DEFAULT_RECIPE = "imagenet-if"
EXIT_QUARANTINED = 3  # the rest is done

RecipeName = Annotated[str, typer.Option(help="A built-in recipe's name or a TOML file.")]
Resolution = Annotated[
    int | None, typer.Option(help="Resolution to end at; by default the recipe's last.")
]
PerClass = Annotated[int, typer.Option(help="Images of each class.")]
Classes = Annotated[
    str | None, typer.Option(help="Only these classes, comma-separated ids or names.")
]
FileFormat = Annotated[
    ShardFormat | None,
    typer.Option("--format", help="Of the files: parquet or arrow; by default the recipe's."),
]
Out = Annotated[str | None, typer.Option(help="Its folder or URL; by default releases/RECIPE-RES.")]
AllowMixed = Annotated[
    bool,
    typer.Option(
        "--allow-mixed",
        help="Go on with other package versions, or another kind of device, than before.",
    ),
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Print the plan, make nothing.")]
Real = Annotated[
    str | None,
    typer.Option(
        help="Import real data: fashion-mnist, a folder such as SPLIT/CLASS/, a data set "
        "NAME[:CONFIG]."
    ),
]
ClassesFrom = Annotated[
    str | None,
    typer.Option(help="With --real: the class list, built in or a CSV, that its classes are of."),
]
ImageColumn = Annotated[
    str | None, typer.Option(help="With --real: the column of images, if it has several.")
]
LabelColumn = Annotated[
    str | None, typer.Option(help="With --real: the column of labels, if it has several.")
]
Views = Annotated[str, typer.Option(help="With --real: resolutions of the views, comma-separated.")]
Crop = Annotated[
    CropRule | None, typer.Option(help="With --real: pad (fashion-mnist) or center-crop.")
]
OnBadImages = Annotated[
    Literal["stop", "skip"],
    typer.Option(
        "--bad-images",
        help="With --real: stop where images cannot be imported (when all are read, and named), "
        "or skip them.",
    ),
]


def main() -> None:
    """Console entry point."""
    run_command(build_dataset, BUILTIN)


def build_dataset(
    recipe: RecipeName = DEFAULT_RECIPE,
    res: Resolution = None,
    per_class: PerClass = 100,
    classes: Classes = None,
    file_format: FileFormat = None,
    out: Out = None,
    workers: Workers = None,
    scheduler: Scheduler = None,
    scheduler_file: SchedulerFile = None,
    tls_ca: TlsCa = None,
    tls_cert: TlsCert = None,
    tls_key: TlsKey = None,
    allow_mixed: AllowMixed = False,
    dry_run: DryRun = False,
    real: Real = None,
    views: Views = "16,32",
    crop: Crop = None,
    classes_from: ClassesFrom = None,
    image_column: ImageColumn = None,
    label_column: LabelColumn = None,
    bad_images: OnBadImages = "stop",
    as_json: Json = False,
) -> int:
    """Build a synthetic release with a recipe, or import real data as one.

    Rerun the same command to go on after an interruption; a higher --per-class extends. Ctrl-C
    once drops the shards in hand and ends cleanly.

    Exit codes: 0 done; 2 bad input, or something outside ended it, as the one line says;
    3 finished, but some shards kept failing (see OUT/quarantine); 130 interrupted.

    Examples:

    \b
      build-dataset --recipe fashion-mnist --res 32 --per-class 100
      build-dataset --recipe fashion-mnist --res 32 --per-class 200
      build-dataset --recipe fashion-mnist --per-class 10 --format arrow --out releases/mapped
      build-dataset --real fashion-mnist
      build-dataset --real ILSVRC/imagenet-1k --views 64,256
      build-dataset --res 1024 --per-class 1200 --dry-run
      build-dataset --recipe fashion-mnist --scheduler tcp://127.0.0.1:8786
    """
    settings = RunSettings(
        ClusterOptions(workers, scheduler, scheduler_file, tls_ca, tls_cert, tls_key),
        allow_mixed,
        (lambda _: None) if as_json else say,
    )
    if real is not None:
        # absolute: workers may run in another folder
        classes_from = classes_from and absolute_if_file(classes_from)
        source = SourceName(absolute_if_folder(real), classes_from, image_column, label_column)
        return _import_real(
            str(source), out, views, crop, file_format, settings, bad_images, as_json
        )
    if classes_from or image_column or label_column:
        raise UserError("--classes-from, --image-column and --label-column go with --real")
    if per_class < 1:
        raise UserError(f"--per-class {per_class}: give at least 1")
    chosen = _chosen_recipe(recipe, file_format)
    everything = load_classes(chosen.classes)
    wanted = select_classes(everything, classes) if classes is not None else everything
    chain = chosen.chain(res)
    release = release_path(out or f"releases/{chosen.name}-{chain[-1].resolution}")
    if dry_run:
        print_plan(chosen, chain, wanted, per_class, release, as_json)
        return 0
    with claimed(release, settings.say):
        plan = plan_build(chosen, chain, wanted, per_class, release)
        with progress_bar(plan.images, chosen.name, "images", quiet=as_json) as advance:
            outcome = build_release(plan, settings, lambda record: advance(record.planned))
    return report_outcome(outcome, release, as_json)


def _chosen_recipe(name: str, file_format: str | None) -> Recipe:
    """The recipe, in the format that the command line asks for, if it does."""
    chosen = load_recipe(name)
    if file_format is None:
        return chosen
    return chosen.model_copy(update={"format": file_format})


def _import_real(
    name: str,
    out: str | None,
    views: str,
    crop: CropRule | None,
    file_format: str | None,
    settings: RunSettings,
    bad_images: Literal["stop", "skip"],
    as_json: bool,
) -> int:
    from builder.imports.release import import_real
    from release.real_sources import open_source

    if file_format == "arrow":
        raise UserError("--format arrow: real images are imported as Parquet; leave it out")
    try:
        resolutions = sorted({int(view) for view in views.split(",")})
    except ValueError:
        raise UserError(
            f"--views {views!r}: give numbers, comma-separated, such as 64,256"
        ) from None
    if min(resolutions) < 1 or max(resolutions) > MOST_SIDE:
        raise UserError(f"--views {views!r}: resolutions are at least 1 and at most {MOST_SIDE}")
    require_no_secret(name)  # it is recorded as the release's source
    source = open_source(name)
    for remark in source.remarks:
        say(f"{source.name}: {remark}")
    release = release_path(out or f"releases/{source.release}")
    _require_outside(release, SourceName.parse(name).name)
    rule: CropRule = crop or ("pad" if source.name == "fashion-mnist" else "center-crop")
    total = sum(len(s.labels) for s in source.splits.values()) * (1 + len(resolutions))
    with (
        claimed(release, settings.say),
        progress_bar(total, source.name, "images and views", quiet=as_json) as advance,
    ):
        decoding = replace(settings, cluster=settings.cluster.without_gpus())
        outcome = import_real(
            name,
            release,
            resolutions,
            rule,
            decoding,
            lambda record: advance(record.planned),
            bad_images,
        )
    return report_outcome(outcome, release, as_json)


def _require_outside(release: ReleasePath, source: str) -> None:
    """UserError for a release in its own source, which the next look at that would import."""
    folder = next((Path(n) for n in (source, source.rpartition(":")[0]) if Path(n).is_dir()), None)
    if not source or folder is None or not isinstance(release, Path):
        return
    if release.resolve().is_relative_to(folder.resolve()):
        raise UserError(f"--out {release} is inside the real images in {folder}: name another")


def report_outcome(outcome: Outcome, release: ReleasePath, as_json: bool) -> int:
    """Where the release is and how to load it, what is quarantined; the exit code."""
    if as_json:
        print(json.dumps(_summary(outcome, release), indent=2))
    elif outcome.manifest is not None:
        _print_how_to_load(outcome.manifest, release)
    left_out = outcome.manifest.origin.get("left_out") if outcome.manifest else None
    if left_out:
        first_file = f"{left_out[0]['file']} of {left_out[0]['split']} {left_out[0]['reason']}"
        say(f"left out: {len(left_out):,} images, the first {first_file} (see the manifest)")
    for name, text in (lagging(outcome.manifest) if outcome.manifest else {}).items():
        say(f"training view {name} {text}")
    if not outcome.quarantined:
        return 0
    first = outcome.quarantined[0]
    say(
        f"quarantined: {len(outcome.quarantined)} shards, {len(outcome.waiting)} more wait on "
        f"them; the rest is done. {first.path}: {first.reason} (see {release / 'quarantine'}; "
        "rerun the same command to try again)"
    )
    return EXIT_QUARANTINED


def _summary(outcome: Outcome, release: ReleasePath) -> dict[str, Any]:
    manifest = outcome.manifest
    configs = manifest.splits() if manifest else {}
    return {
        "release": str(release),
        "kind": manifest and manifest.kind,
        "content_sha256": manifest and manifest.content_sha256,
        "rows": {c: {s: manifest.rows(c, s) for s in configs[c]} for c in configs if manifest},
        "empty_slots": {
            c: {s: manifest.quarantined(c, s).total() for s in configs[c]}
            for c in configs
            if manifest
        },
        "quarantined": {failure.path: failure.reason for failure in outcome.quarantined},
        "waiting": list(outcome.waiting),
        "lagging_views": lagging(manifest) if manifest else {},
        "left_out": manifest.origin.get("left_out", []) if manifest else [],
    }


def _print_how_to_load(manifest: Manifest, release: ReleasePath) -> None:
    configs = manifest.splits()
    config = next(reversed(manifest.base.splits()))
    split = leading_split(configs[config])
    rows_text = "; ".join(
        f"{c}: " + ", ".join(f"{s} {manifest.rows(c, s):,}" for s in splits)
        for c, splits in configs.items()
    )
    print(f"release {release}  ({rows_text} images)")
    empty = {c: manifest.quarantined(c, s).total() for c, splits in configs.items() for s in splits}
    if any(empty.values()):
        counts = ", ".join(f"{c}: {count:,}" for c, count in empty.items() if count)
        print(f"slots left empty ({counts}): no attempt was accepted; reasons in rejections/")
    file_format = shard_format(manifest.shards[0].path)
    print("load it with:")
    local = isinstance(release, Path)
    if file_format == "arrow" and local:
        print("  from datasets import load_from_disk")
        print(f"  images = load_from_disk({_quoted(f'{release}/{config}/{split}')})")
        return
    print("  from datasets import load_dataset")
    literal = glob.escape(str(release)) if local else str(release)
    if local and literal == str(release):
        print(f'  images = load_dataset({_quoted(literal)}, "{config}", split="{split}")')
        return
    # load_dataset takes a folder's name for a pattern, so that [ and ? in it have to be escaped
    files = _quoted(f"{literal}/{shard_name(config, split, '*', file_format)}")
    print(f'  images = load_dataset("{file_format}", data_files={files}, split="train")')


def _quoted(text: str) -> str:
    """As Python reads it."""
    return json.dumps(text, ensure_ascii=False)


if __name__ == "__main__":
    main()
