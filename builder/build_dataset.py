"""The command `build-dataset`."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from builder.cluster.cluster import ClusterOptions
from builder.planning.device_cost import Device
from builder.planning.recipe import BUILTIN, MOST_ROWS, load_recipe
from generation.networks.gpus import GPU, GPUS, UTILISATION
from release.classes.class_list import load_classes, select_classes
from release.commands.command import Builtin, help_ends, run_command, say
from release.commands.options import Json, Scheduler, SchedulerFile, TlsCa, TlsCert, TlsKey, Workers
from release.errors import UserError
from release.files.formats import ShardFormat
from release.files.storage import (
    ReleasePath,
    absolute_if_file,
    absolute_if_folder,
    release_path,
)
from release.images.crop_rules import CropRule
from release.real_sources.source import SourceName

if TYPE_CHECKING:
    from builder.builds.run import RunSettings
    from builder.making import Wanted

DEFAULT_RECIPE = "imagenet-if"
PER_CLASS = 100
VIEWS = "16,32"
OF_PLANS, OF_MAKING = ("--gpu", "--utilisation"), ("--batch", "--compile")
OF_BUILDS = (
    *("--recipe", "--res", "--per-class", "--classes", "--dry-run", "--compare", "--rate"),
    *(*OF_MAKING, *OF_PLANS),
)
ALL_IMPORTED = "of a build; --real imports all images of what it names"
OF_IMPORTS = (
    *("--classes-from", "--image-column", "--label-column", "--test-share", "--split-seed"),
    *("--views", "--crop"),
)

RecipeName = Annotated[
    str | None,
    typer.Option(
        help=f"A built-in recipe's name or a TOML file.  [default: {DEFAULT_RECIPE}]",
    ),
]
Resolution = Annotated[
    int | None, typer.Option(help="Resolution to end at; by default the recipe's last.")
]
PerClass = Annotated[
    int | None, typer.Option(help=f"Images of each class.  [default: {PER_CLASS}]")
]
Classes = Annotated[
    str | None, typer.Option(help="Only these classes, comma-separated ids or names.")
]
FileFormat = Annotated[
    ShardFormat | None,
    typer.Option("--format", help="Of the files: parquet or arrow; by default the recipe's."),
]
Out = Annotated[str | None, typer.Option(help="Its folder or URL; by default releases/RECIPE-RES.")]
Batch = Annotated[
    str | None,
    typer.Option(
        help="Images that networks see at once: one number, or one for each stage, "
        "comma-separated; by default what fits a GPU's memory, without one the recipe's."
    ),
]
Compile = Annotated[
    bool | None,
    typer.Option(
        "--compile/--no-compile",
        help="Run networks compiled; by default on a GPU, where it pays, and where the recipe "
        "says so.",
    ),
]
AllowMixed = Annotated[
    bool,
    typer.Option(
        "--allow-mixed",
        help="Go on with other package versions, or another kind of device, than before.",
    ),
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Print the plan, make nothing.")]
Compare = Annotated[
    bool,
    typer.Option(
        "--compare", help="Print what each recipe that reaches --res takes, make nothing."
    ),
]
Rate = Annotated[
    str | None,
    typer.Option(help="With --compare: the price of a device-hour, such as '1.80 EUR'."),
]
GpuName = Annotated[
    str | None,
    typer.Option(
        "--gpu",
        help=f"With --compare or --dry-run: the GPU that hours are told of: {', '.join(GPUS)}.  "
        f"[default: {GPU}]",
    ),
]
Utilisation = Annotated[
    float | None,
    typer.Option(
        help="With --compare or --dry-run: the share of the GPU's peak that its work is assumed to "
        f"reach.  [default: {UTILISATION}]"
    ),
]
Results = Annotated[
    Path | None, typer.Option(help="With --compare: a folder of results, for measured CAS.")
]
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
TestShare = Annotated[
    float | None,
    typer.Option(
        min=0.01,
        max=0.9,
        help="With --real: make this share of each class the test split of data that has none; "
        "a folder may be CLASS/image then.",
    ),
]
SplitSeed = Annotated[
    int | None, typer.Option(min=0, help="With --test-share: decides which images.")
]
Views = Annotated[
    str | None,
    typer.Option(
        help=f"With --real: resolutions of the views, comma-separated.  [default: {VIEWS}]"
    ),
]
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
    run_command(build_dataset, Builtin(BUILTIN))


@help_ends(
    """
    Exit codes: 0 done; 2 bad input, or something outside ended it, as the one line says;
    3 finished, but some shards kept failing (see OUT/quarantine); 130 interrupted.

    \b
      build-dataset --recipe fashion-mnist --res 32 --per-class 100
      build-dataset --recipe fashion-mnist --res 32 --per-class 200
      build-dataset --recipe fashion-mnist --per-class 10 --format arrow --out releases/mapped
      build-dataset --real fashion-mnist
      build-dataset --real ILSVRC/imagenet-1k --views 64,256
      build-dataset --real my-images --test-share 0.2 --views 16,32
      build-dataset --res 1024 --per-class 1200 --dry-run --gpu a100-40
      build-dataset --res 256 --per-class 1200 --compare --rate '1.80 EUR'
      build-dataset --recipe fashion-mnist --scheduler tcp://127.0.0.1:8786
    """
)
def build_dataset(
    recipe: RecipeName = None,
    res: Resolution = None,
    per_class: PerClass = None,
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
    batch: Batch = None,
    compiled: Compile = None,
    dry_run: DryRun = False,
    compare: Compare = False,
    rate: Rate = None,
    gpu: GpuName = None,
    utilisation: Utilisation = None,
    results: Results = None,
    real: Real = None,
    views: Views = None,
    crop: Crop = None,
    classes_from: ClassesFrom = None,
    image_column: ImageColumn = None,
    label_column: LabelColumn = None,
    test_share: TestShare = None,
    split_seed: SplitSeed = None,
    bad_images: OnBadImages = "stop",
    as_json: Json = False,
) -> int:
    """Build a synthetic release with a recipe, or import real data as one.

    Rerun the same command to go on after an interruption; a higher --per-class extends. Ctrl-C
    once drops the shards in hand and ends cleanly.
    """
    from builder.comparing import print_comparison

    cluster = ClusterOptions(workers, scheduler, scheduler_file, tls_ca, tls_cert, tls_key)
    settings = _settings(cluster, allow_mixed, as_json)
    about = (classes_from, image_column, label_column, test_share, split_seed)
    of_making, of_plans = (batch, compiled), (gpu, utilisation)
    if real is not None:
        asked = (recipe, res, per_class, classes, dry_run or None, compare or None, rate)
        _refuse(OF_BUILDS, (*asked, *of_making, *of_plans), ALL_IMPORTED)
        named = _source_name(real, *about)
        return _import(named, views or VIEWS, crop, file_format, out, bad_images, settings, as_json)
    _refuse(OF_IMPORTS, (*about, views, crop), "of an import, with --real")
    device, count = Device.named(gpu, utilisation), _counted(per_class)
    if compare:
        _refuse(OF_MAKING, of_making, "of a build")
        print_comparison(res, count, classes, recipe, rate, results, as_json, device)
        return 0
    _refuse(("--rate", "--results"), (rate, results), "of a comparison, with --compare")
    wanted = _wanted(recipe, res, count, classes, file_format, batch, compiled)
    if dry_run:
        return _tell_plan(wanted, out, as_json, device, cluster)
    _refuse(OF_PLANS, of_plans, "of a plan, with --compare or --dry-run")
    return _build(wanted, out, settings, as_json)


def _settings(cluster: ClusterOptions, allow_mixed: bool, as_json: bool) -> "RunSettings":
    from builder.builds.run import RunSettings

    return RunSettings(cluster, allow_mixed, _be_quiet if as_json else say)


def _refuse(options: Sequence[str], values: Sequence[object], what: str) -> None:
    """UserError that names the options that have a value."""
    given = [name for name, value in zip(options, values, strict=True) if value is not None]
    if given:
        raise UserError(
            f"{', '.join(given)}: {what}; leave {'it' if len(given) == 1 else 'them'} out"
        )


def _be_quiet(_: str) -> None:
    pass


def _place(wanted: "Wanted", out: str | None) -> ReleasePath:
    return release_path(out or f"releases/{wanted.recipe.name}-{wanted.chain[-1].resolution}")


def _tell_plan(
    wanted: "Wanted", out: str | None, as_json: bool, device: Device, cluster: ClusterOptions
) -> int:
    from builder.dry_run import print_plan

    print_plan(wanted, _place(wanted, out), as_json, device, wanted.means(cluster))
    return 0


def _build(wanted: "Wanted", out: str | None, settings: "RunSettings", as_json: bool) -> int:
    from builder.making import build_wanted
    from builder.reporting import report_outcome

    release = _place(wanted, out)
    outcome = build_wanted(wanted, release, settings, quiet=as_json)
    return report_outcome(outcome, release, as_json)


def _wanted(
    name: str | None,
    res: int | None,
    per_class: int,
    classes: str | None,
    file_format: ShardFormat | None,
    batch: str | None,
    compiled: bool | None,
) -> "Wanted":
    """What the command line asks for, in the format it names, else the recipe's."""
    from builder.making import Wanted

    recipe = load_recipe(name or DEFAULT_RECIPE)
    if file_format is not None:
        recipe = recipe.model_copy(update={"format": file_format})
    everything = load_classes(recipe.classes)
    chosen = select_classes(everything, classes) if classes is not None else everything
    chain, batches = recipe.chain(res), _batches(batch)
    return Wanted(recipe, chain, everything, chosen, per_class, batches, compiled)


def _counted(per_class: int | None) -> int:
    if per_class is None:
        return PER_CLASS
    if per_class < 1:
        raise UserError(f"--per-class {per_class}: give at least 1")
    return per_class


def _batches(text: str | None) -> tuple[int, ...] | None:
    if text is None:
        return None
    numbers = text.split(",")
    if not all(number.strip().isdecimal() and 0 < int(number) <= MOST_ROWS for number in numbers):
        raise UserError(f"--batch {text!r}: give a number of images, or one for each stage: 64,16")
    return tuple(int(number) for number in numbers)


def _source_name(
    real: str,
    classes_from: str | None,
    image_column: str | None,
    label_column: str | None,
    test_share: float | None,
    split_seed: int | None,
) -> str:
    """As it is recorded, with absolute paths: workers may run in another folder."""
    if test_share is None and split_seed is not None:
        raise UserError(f"--split-seed {split_seed} goes with --test-share")
    return str(
        SourceName(
            absolute_if_folder(real),
            classes_from and absolute_if_file(classes_from),
            image_column,
            label_column,
            None if test_share is None else f"{test_share:g}",
            None if split_seed is None else str(split_seed),
        )
    )


def _import(
    name: str,
    views: str,
    crop: CropRule | None,
    file_format: ShardFormat | None,
    out: str | None,
    bad_images: Literal["stop", "skip"],
    settings: "RunSettings",
    as_json: bool,
) -> int:
    from builder.making import import_images
    from builder.reporting import report_outcome

    if file_format == "arrow":
        raise UserError("--format arrow: real images are imported as Parquet; leave it out")
    try:
        resolutions = sorted({int(view) for view in views.split(",")})
    except ValueError:
        raise UserError(
            f"--views {views!r}: give numbers, comma-separated, such as 64,256"
        ) from None
    outcome, release = import_images(
        name, out, resolutions, crop, settings, bad_images, quiet=as_json
    )
    return report_outcome(outcome, release, as_json)


if __name__ == "__main__":
    main()
