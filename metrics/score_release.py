"""The command `score-release`."""

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import platformdirs
import typer

from builder.manifest import read_manifest
from builder.results import Result
from generation.command import run_command
from generation.errors import UserError
from generation.image_sets import PSEUDO_SPLITS
from generation.progress import progress_bar
from metrics.extractors import DEFAULT_EXTRACTOR, EXTRACTORS, load_extractor
from metrics.image_lists import ImageSet, open_image_set
from metrics.metric_list import DEFAULT_METRICS, METRICS, parse_metrics

CACHE = Path(platformdirs.user_cache_dir("synthetic-imagenet")) / "metrics"
_EXTRACTOR_HELP = "; ".join(f"{e.example}: {e.description}" for e in EXTRACTORS.values())


def main() -> None:
    """Console entry point."""
    run_command(score_release)


def score_release(
    releases: Annotated[
        list[str], typer.Argument(help="RELEASE:CONFIG or RELEASE:CONFIG:SPLIT (split: train).")
    ],
    real: Annotated[Path, typer.Option(help="The real release: every split is a reference.")],
    out: Annotated[Path, typer.Option(help="Folder for the result files.")] = Path("results"),
    extractor: Annotated[
        list[str] | None,
        typer.Option(help=f"May be given several times. {_EXTRACTOR_HELP}."),
    ] = None,
    metrics: Annotated[
        str, typer.Option(help=f"Comma-separated, or all: {', '.join(METRICS)}.")
    ] = DEFAULT_METRICS,
    cache: Annotated[Path, typer.Option(help="Features and reference statistics.")] = CACHE,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1 …")] = "auto",
    batch: Annotated[int, typer.Option(help="Images the network sees at once.")] = 64,
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
        --real releases/fashion-mnist-real --metrics all
    """
    if batch < 1:
        raise UserError(f"--batch {batch}: give at least 1")
    wanted = parse_metrics(metrics)
    subjects = [parse_image_set(text) for text in releases]
    references = {s.config: open_references(real, s.config) for s in subjects}
    written: list[tuple[Path, Result]] = []
    for name in extractor or [DEFAULT_EXTRACTOR]:
        loaded = load_extractor(name, device, batch)
        from metrics.scoring import Scorer  # after the extractor's own error messages

        sets = {s.label: s for s in [*subjects, *(r for rs in references.values() for r in rs)]}
        total = sum(s.count(cache) for s in sets.values())
        with progress_bar(total, name, "images", quiet=as_json) as advance:
            scorer = Scorer(loaded, wanted, cache, advance)
            for subject in subjects:
                result = scorer.score(subject, references[subject.config])
                path = out / f"{_file_name(subject.label)}-{_file_name(name)}.json"
                result.write(path)
                written.append((path, result))
    if as_json:
        print(json.dumps({str(path): asdict(result) for path, result in written}, indent=1))
    else:
        print_table(written)


def parse_image_set(text: str) -> ImageSet:
    """RELEASE:CONFIG or RELEASE:CONFIG:SPLIT; raises UserError for anything else."""
    parts = text.split(":")
    if len(parts) not in (2, 3) or not all(parts):
        raise UserError(f"{text!r}: give RELEASE:CONFIG, such as releases/fashion-mnist-32:32")
    return open_image_set(Path(parts[0]), parts[1], parts[2] if len(parts) == 3 else "train")


def open_references(real: Path, config: str) -> list[ImageSet]:
    """Every split that `real` stores for `config`."""
    manifest = read_manifest(real)
    if manifest.kind != "real":
        raise UserError(f"--real {real} is a synthetic release; see build-dataset --real")
    splits = manifest.splits().get(config, ["train"])  # opening it names what there is instead
    return [open_image_set(real, config, s) for s in splits if s not in PSEUDO_SPLITS]


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
