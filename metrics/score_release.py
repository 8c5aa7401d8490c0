"""The command `score-release`."""

import json
import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import platformdirs
import typer

from builder.cluster import ClusterOptions
from builder.manifest import read_manifest
from builder.results import Result
from generation.command import run_command
from generation.errors import UserError
from generation.image_sets import PSEUDO_SPLITS
from generation.progress import progress_bar
from generation.storage import ReleasePath, release_path, split_release
from metrics.extraction import plan_extraction, run_extraction
from metrics.extractors import DEFAULT_EXTRACTOR, EXTRACTORS, load_extractor
from metrics.image_lists import ImageSet, open_image_set
from metrics.metric_list import DEFAULT_METRICS, METRICS, choose_metrics, parse_metrics
from metrics.pair_picture import draw_closest_pairs
from metrics.reference_files import FIELDS, read_reference_file, write_reference_file
from metrics.sample import SAMPLE_IMAGES

if TYPE_CHECKING:
    from metrics.scoring import Scorer

CACHE = Path(platformdirs.user_cache_dir("synthetic-imagenet")) / "metrics"
_EXTRACTOR_HELP = "; ".join(f"{e.example}: {e.description}" for e in EXTRACTORS.values())


def main() -> None:
    """Console entry point."""
    run_command(score_release)


def score_release(
    releases: Annotated[
        list[str], typer.Argument(help="RELEASE:CONFIG or RELEASE:CONFIG:SPLIT (split: train).")
    ],
    real: Annotated[str, typer.Option(help="The real release: every split is a reference.")],
    out: Annotated[Path, typer.Option(help="Folder for the result files.")] = Path("results"),
    extractor: Annotated[
        list[str] | None,
        typer.Option(help=f"May be given several times. {_EXTRACTOR_HELP}."),
    ] = None,
    metrics: Annotated[
        str, typer.Option(help=f"Comma-separated, or all: {', '.join(METRICS)}.")
    ] = DEFAULT_METRICS,
    per_class: Annotated[
        bool, typer.Option("--per-class", help="Add the metric classes, and agreement if known.")
    ] = False,
    sample: Annotated[
        int,
        typer.Option(min=2, help="Images a set for kid, prdc and copies; part of the protocol."),
    ] = SAMPLE_IMAGES,
    reference: Annotated[
        list[Path] | None,
        typer.Option(help="npz of ADM, EDM or pytorch-fid, of this extractor's features."),
    ] = None,
    export_reference: Annotated[
        Path | None,
        typer.Option(help="Folder for the real splits' statistics, as those tools read them."),
    ] = None,
    cache: Annotated[Path, typer.Option(help="Features and reference statistics.")] = CACHE,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1 …")] = "auto",
    batch: Annotated[int, typer.Option(help="Images the network sees at once.")] = 64,
    workers: Annotated[
        int | None,
        typer.Option(min=1, help="Processes that extract features; by default one a GPU or core."),
    ] = None,
    scheduler: Annotated[
        str | None, typer.Option(help="Address of a Dask cluster to extract features on.")
    ] = None,
    scheduler_file: Annotated[
        Path | None, typer.Option(help="The file in which that scheduler left its address.")
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="One JSON document, no progress.")
    ] = False,
) -> None:
    """Score releases against the real train and test splits; one result file each.

    Features are kept in the cache: rerunning after adding images reads only the new ones. The
    default extractor works offline; its distance is not FID and is never called so.

    Examples:

    \b
      score-release releases/fashion-mnist-32:32 \\
        --real releases/fashion-mnist-real
      score-release releases/fashion-mnist-32:16 \\
        --real releases/fashion-mnist-real --metrics all --per-class
      score-release releases/fashion-mnist-32:32 releases/fashion-mnist-32:16 \\
        --real releases/fashion-mnist-real --export-reference statistics
    """
    if batch < 1:
        raise UserError(f"--batch {batch}: give at least 1")
    cluster = ClusterOptions(workers, scheduler, scheduler_file)
    parse_metrics(metrics)  # a wrong name is told before anything is loaded
    files = [read_reference_file(path) for path in reference or []]
    subjects = [parse_image_set(text) for text in releases]
    references = {s.config: open_references(release_path(real), s.config) for s in subjects}
    written: list[tuple[Path, Result]] = []
    for name in extractor or [DEFAULT_EXTRACTOR]:
        loaded = load_extractor(name, device, batch)
        from metrics.scoring import Scorer  # after the extractor's own error messages

        sets = {s.label: s for s in [*subjects, *(r for rs in references.values() for r in rs)]}
        tasks = plan_extraction(list(sets.values()), loaded.protocol, name, device, batch, cache)
        rows = sum(task.images for task in tasks)
        with progress_bar(rows, f"{name}, features", "images", quiet=as_json) as advance:
            say = (lambda _: None) if as_json else _remark
            run_extraction(tasks, cluster, say, lambda task: advance(task.images))
        total = sum(s.count(cache) for s in sets.values())
        with progress_bar(total, f"{name}, scores", "images", quiet=as_json) as advance:
            chosen = choose_metrics(metrics, per_class, loaded, subjects[0].manifest.classes)
            scorer = Scorer(loaded, chosen, cache, advance, sample, files)
            for subject in subjects:
                result = scorer.score(subject, references[subject.config])
                path = out / f"{_file_name(subject.label)}-{_file_name(name)}.json"
                result.write(path)
                written.append((path, result))
                if "nearest_train" in result.values:
                    picture = path.with_name(f"{path.stem}-nearest.png")
                    train = next(r for r in references[subject.config] if r.split == "train")
                    draw_closest_pairs(picture, result, subject, train, cache)
            if export_reference:
                export_references(scorer, references.values(), export_reference)
    if as_json:
        print(json.dumps({str(path): asdict(result) for path, result in written}, indent=1))
    else:
        print_table(written)


def parse_image_set(text: str) -> ImageSet:
    """RELEASE:CONFIG or RELEASE:CONFIG:SPLIT; raises UserError for anything else."""
    release, parts = split_release(text)
    if len(parts) not in (1, 2) or not all((release, *parts)):
        raise UserError(f"{text!r}: give RELEASE:CONFIG, such as releases/fashion-mnist-32:32")
    return open_image_set(release_path(release), *parts, *["train"][: 2 - len(parts)])


def open_references(real: ReleasePath, config: str) -> list[ImageSet]:
    """Every split that `real` stores for `config`."""
    manifest = read_manifest(real)
    if manifest.kind != "real":
        raise UserError(f"--real {real} is a synthetic release; see build-dataset --real")
    splits = manifest.splits().get(config, ["train"])  # opening it names what there is instead
    return [open_image_set(real, config, s) for s in splits if s not in PSEUDO_SPLITS]


def export_references(
    scorer: "Scorer", references: Iterable[Sequence[ImageSet]], folder: Path
) -> None:
    """One npz a real split: mean and covariance of the features the metrics asked for."""
    for reference in (r for splits in references for r in splits):
        states = scorer.reference_states(reference)
        gaussians = {family: states[family] for family in FIELDS if family in states}
        if not gaussians:
            raise UserError("--export-reference writes what fd and sfid measure against: add fd")
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
    for column in ("release", "extractor", "value", "n", "reference n", "", "95% interval"):
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
            table.add_row(name, extractor, key, str(value["n"]), reference_n, number, interval)
    Console(width=None if sys.stdout.isatty() else 140).print(table)
    for path, _ in written:
        print(path)
