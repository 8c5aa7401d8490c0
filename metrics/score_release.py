"""The command `score-release`."""

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from builder.cluster.cluster import ClusterOptions
from metrics.cache_folder import CACHE
from metrics.evaluation import with_values_of
from metrics.features.extraction import extract_sets
from metrics.features.extractors import DEFAULT_EXTRACTOR, EXTRACTORS, load_extractor, require_batch
from metrics.features.image_lists import ImageSet, open_image_set, same_label
from metrics.options import Batch, Cache, Device, ExtractionScheduler, Out, SomeWorkers
from metrics.scoring.feature_spaces import by_subject, over_spaces
from metrics.scoring.metric import Metric
from metrics.scoring.metric_list import (
    DEFAULT_METRICS,
    METRICS,
    choose_metrics,
    hoped_metrics,
    parse_metrics,
)
from metrics.scoring.pair_picture import draw_closest_pairs, draw_easiest
from metrics.scoring.reference_files import (
    FIELDS,
    ReferenceFile,
    read_reference_files,
    write_reference_file,
)
from metrics.scoring.reference_splits import (
    ratio_left_out,
    references_needed,
    require_splits,
    train_split,
)
from metrics.states.sample import SAMPLE_IMAGES
from release.commands.command import help_ends, run_command
from release.commands.named_files import require_folder
from release.commands.options import Json, SchedulerFile, TlsCa, TlsCert, TlsKey
from release.commands.progress import progress_bar
from release.commands.terminal import table_cell
from release.errors import UserError
from release.files.commit import alone_in, canonical_json, sha256_text
from release.files.storage import ReleasePath, release_path, split_release
from release.layout.manifest import read_manifest
from release.real_sources.source import PSEUDO_SPLITS
from release.results.result import Result

if TYPE_CHECKING:
    from metrics.scoring.scoring import Scorer

_EXTRACTOR_HELP = "; ".join(f"{e.example}: {e.description}" for e in EXTRACTORS.values())


Releases = Annotated[
    list[str], typer.Argument(help="RELEASE:CONFIG or RELEASE:CONFIG:SPLIT (split: train).")
]
Real = Annotated[str, typer.Option(help="The real release: every split is a reference.")]
ExtractorNames = Annotated[
    list[str] | None, typer.Option(help=f"May be given several times. {_EXTRACTOR_HELP}.")
]
MetricNames = Annotated[str, typer.Option(help=f"Comma-separated, or all: {', '.join(METRICS)}.")]
PerClass = Annotated[
    bool, typer.Option("--per-class", help="Add the metric classes, and agreement if known.")
]
SampleSize = Annotated[
    int,
    typer.Option(
        min=2, help="Images a set for kid, prdc, fdr, c2st, copies; part of the protocol."
    ),
]
ReferenceFiles = Annotated[
    list[Path] | None,
    typer.Option(help="npz of ADM, EDM or pytorch-fid, of this extractor's features."),
]
ExportFolder = Annotated[
    Path | None,
    typer.Option(help="Folder for the real splits' statistics, as those tools read them."),
]


@dataclass(frozen=True, kw_only=True)
class _Order:
    """What one command asks for, of every extractor."""

    subjects: Sequence[ImageSet]
    references: Mapping[str, Sequence[ImageSet]]  # by configuration
    metrics: str
    per_class: bool
    sample: int
    files: Sequence[ReferenceFile]
    export_to: Path | None
    cache: Path
    device: str
    batch: int
    cluster: ClusterOptions
    out: Path
    quiet: bool


def main() -> None:
    """Console entry point."""
    run_command(score_release)


@help_ends(
    """
    Examples:

    \b
      score-release releases/fashion-mnist-32:32 \\
        --real releases/fashion-mnist-real
      score-release releases/fashion-mnist-32:16 \\
        --real releases/fashion-mnist-real --metrics all --per-class
      score-release releases/fashion-mnist-32:32 --real releases/fashion-mnist-real \\
        --metrics fdr --extractor efficientnet-lite0-64 --extractor dinov2-vitl14
      score-release releases/fashion-mnist-32:32 releases/fashion-mnist-32:16 \\
        --real releases/fashion-mnist-real --export-reference statistics
    """
)
def score_release(
    releases: Releases,
    real: Real,
    out: Out = Path("results"),
    extractor: ExtractorNames = None,
    metrics: MetricNames = DEFAULT_METRICS,
    per_class: PerClass = False,
    sample: SampleSize = SAMPLE_IMAGES,
    reference: ReferenceFiles = None,
    export_reference: ExportFolder = None,
    cache: Cache = CACHE,
    device: Device = "auto",
    batch: Batch = 64,
    workers: SomeWorkers = None,
    scheduler: ExtractionScheduler = None,
    scheduler_file: SchedulerFile = None,
    tls_ca: TlsCa = None,
    tls_cert: TlsCert = None,
    tls_key: TlsKey = None,
    as_json: Json = False,
) -> None:
    """Score releases against the real train and test splits; one result file each.

    Features are kept in the cache: rerunning after adding images reads only the new ones. The
    default extractor works offline; its distance is not FID and is never called so.
    """
    _require_inputs(batch, out, cache, metrics)
    cluster = ClusterOptions(workers, scheduler, scheduler_file, tls_ca, tls_cert, tls_key)
    files = read_reference_files(reference or [])
    subjects, references = open_sets(releases, release_path(real))
    if metrics != "all":
        for splits in references.values():
            require_splits(parse_metrics(metrics), splits)
    hoped = hoped_metrics(metrics, per_class)
    for subject in subjects:
        if reason := ratio_left_out(hoped, references[subject.config], subject):
            _remark(reason)
    order = _Order(
        subjects=subjects,
        references=references,
        metrics=metrics,
        per_class=per_class,
        sample=sample,
        files=files,
        export_to=export_reference,
        cache=cache,
        device=device,
        batch=batch,
        cluster=cluster,
        out=out,
        quiet=as_json,
    )
    written = [pair for e in extractor or [DEFAULT_EXTRACTOR] for pair in _score_with(e, order)]
    written += _write_means(written, out)
    if as_json:
        print(json.dumps({str(path): asdict(result) for path, result in written}, indent=1))
    else:
        print_table(written)


def _require_inputs(batch: int, out: Path, cache: Path, metrics: str) -> None:
    """UserError, before anything is loaded, for what could not be used."""
    require_batch(batch)
    require_folder(out, "--out")
    require_folder(cache, "--cache")
    parse_metrics(metrics)


def _score_with(name: str, order: _Order) -> list[tuple[Path, Result]]:
    """Every subject by one extractor: features first, then scores, each written as it is there."""
    loaded = load_extractor(name, order.device, order.batch)
    from metrics.scoring.scoring import Scorer  # after the extractor's own error messages

    classes = order.subjects[0].manifest.classes
    chosen = choose_metrics(order.metrics, order.per_class, loaded, classes)
    scorer = Scorer(loaded, chosen, order.cache, sample=order.sample, files=order.files)
    for subject in order.subjects:
        scorer.require_possible(subject, order.references[subject.config])
    if order.export_to and not any(metric.kind in FIELDS for metric in chosen.values()):
        raise UserError("--export-reference writes what fd and sfid measure against: add fd")
    real = [r for splits in order.references.values() for r in splits]
    needed = real if order.export_to else _needed(order, chosen)
    sets = {s.label: s for s in [*order.subjects, *needed]}
    extract_sets(
        list(sets.values()),
        name,
        loaded,
        order.device,
        order.cache,
        order.cluster,
        quiet=order.quiet,
    )
    total = sum(s.count(order.cache) for s in sets.values())
    written = []
    with progress_bar(total, f"{name}, scores", "images", quiet=order.quiet) as advance:
        scorer = replace(scorer, on_images=advance)
        for subject in order.subjects:
            written.append(_score_one(scorer, subject, name, order))
        if order.export_to:
            export_references(scorer, order.references.values(), order.export_to)
    return written


def _needed(order: _Order, metrics: Mapping[str, Metric]) -> list[ImageSet]:
    """The real splits that these metrics read of any subject."""
    return [
        r
        for s in order.subjects
        for r in references_needed(metrics.values(), order.references[s.config], s)
    ]


def _score_one(
    scorer: "Scorer", subject: ImageSet, name: str, order: _Order
) -> tuple[Path, Result]:
    """Its result, written, and pictures of the images that it names."""
    references = order.references[subject.config]
    result = scorer.score(subject, references)
    path = order.out / f"{_file_name(subject.label)}-{_file_name(name)}.json"
    train = train_split(references)
    if "nearest_train" in result.values and train is not None:
        picture = path.with_name(f"{path.stem}-nearest.png")
        draw_closest_pairs(picture, result, subject, train, order.cache)
    for key in (key for key, value in result.values.items() if "easiest" in value):
        draw_easiest(path.with_name(f"{path.stem}-{key}.png"), result, key, subject, order.cache)
    with alone_in(path.parent):
        result = with_values_of(path, result)
        result.write(path)
    return path, result


def _write_means(written: Sequence[tuple[Path, Result]], out: Path) -> list[tuple[Path, Result]]:
    """FDr over the feature spaces of this command, where they are several; a file a release."""
    found = []
    for results in by_subject([result for _, result in written]):
        mean = over_spaces(results)
        subject, spaces = mean.subject, sha256_text(canonical_json(mean.protocol))[:8]
        name = _file_name(f"{subject['name']}-{subject['config']}-{subject['split']}")
        path = out / f"{name}-fdr-{len(results)}-spaces-{spaces}.json"
        mean.write(path)
        found.append((path, mean))
    return found


def parse_image_set(text: str) -> ImageSet:
    """RELEASE:CONFIG or RELEASE:CONFIG:SPLIT; raises UserError for anything else."""
    release, parts = split_release(text)
    if len(parts) not in (1, 2) or not all((release, *parts)):
        raise UserError(f"{text!r}: give RELEASE:CONFIG, such as releases/fashion-mnist-32:32")
    return open_image_set(release_path(release), *parts, *["train"][: 2 - len(parts)])


def open_sets(
    releases: Sequence[str], real: ReleasePath
) -> tuple[list[ImageSet], dict[str, list[ImageSet]]]:
    """What is scored, of the classes that the real images have; what against, by configuration."""
    named = [parse_image_set(text) for text in releases]
    label = same_label(named)
    if label is not None:
        raise UserError(
            f"two of {', '.join(releases)} are called {label}, so both would write one result "
            "file; score each by a command of its own, with another --out"
        )
    references = {s.config: open_references(real, s.config) for s in named}
    return [_of_real_classes(s, references[s.config][0]) for s in named], references


def open_references(real: ReleasePath, config: str) -> list[ImageSet]:
    """Every split that `real` stores for `config`."""
    manifest = read_manifest(real)
    if manifest.kind != "real":
        raise UserError(f"--real {real} is a synthetic release; see build-dataset --real")
    splits = manifest.splits().get(config, ["train"])  # opening it names what there is instead
    return [open_image_set(real, config, s) for s in splits if s not in PSEUDO_SPLITS]


def _of_real_classes(subject: ImageSet, real: ImageSet) -> ImageSet:
    """Of a release of all classes, those that the real images have: ImageNet-100 of ImageNet."""
    found = subject.of_classes_of(real)
    if found.stored:
        _remark(
            f"{subject.label}: only its {len(found.manifest.classes)} of {len(found.stored)} "
            f"classes that {real.manifest.name} has are scored"
        )
    return found


def export_references(
    scorer: "Scorer", references: Iterable[Sequence[ImageSet]], folder: Path
) -> None:
    """One npz a real split: mean and covariance of the features the metrics asked for."""
    for reference in (r for splits in references for r in splits):
        states = scorer.reference_states(reference)
        gaussians = {kind: states[kind] for kind in FIELDS if kind in states}
        protocol = scorer.extractor.protocol
        name = f"{_file_name(reference.label)}-{_file_name(protocol.extractor)}.npz"
        write_reference_file(folder / name, gaussians, protocol.sha256)


def _remark(text: str) -> None:
    print(text, file=sys.stderr)


def _file_name(text: str) -> str:
    return text.replace(":", "-").replace("/", "-")


def print_table(written: list[tuple[Path, Result]]) -> None:
    """One row a value: what, of which release, with which extractor, n, interval."""
    from rich.console import Console
    from rich.table import Table

    table = Table()
    for column in ("release", "extractor", "metric", "n", "reference n", "value", "95% interval"):
        table.add_column(column, justify="left" if column in ("release", "extractor") else "right")
    for _, result in written:
        subject = result.subject
        name = f"{subject['name']}:{subject['config']}:{subject['split']}"
        extractor = result.protocol["features"]["extractor"]
        for key, value in result.values.items():
            low_high = value.get("interval")
            interval = f"{low_high[0]:.4g} … {low_high[1]:.4g}" if low_high else ""
            reference_n = str(value.get("reference_n", ""))
            number = f"{value['value']:.4g}"
            table.add_row(
                table_cell(name),
                table_cell(extractor),
                key,
                str(value["n"]),
                reference_n,
                number,
                interval,
            )
    Console(width=None if sys.stdout.isatty() else 140).print(table)
    for path, result in written:
        for key, value in result.values.items():
            if "infinity_refused" in value:
                name = key.replace("_", "_infinity_", 1)
                print(f"{name} is not given: {value['infinity_refused']}")
        print(path)


if __name__ == "__main__":
    main()
