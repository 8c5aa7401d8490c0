"""The command `evaluate-representation`."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cache as cached
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from builder.cluster.cluster import ClusterOptions
from metrics.cache_folder import CACHE
from metrics.evaluation import EvaluationSubject, complete, print_results, require_places
from metrics.features.extraction import extract_sets
from metrics.features.extractors import Extractor, load_extractor
from metrics.features.named_networks import NamedNetwork, name_networks
from metrics.features.release_features import split_identity
from metrics.representation.evaluation import FROZEN, REPRESENTATION, Asked
from metrics.representation.fine_tuning import STEPS, FineTuning
from metrics.representation.parts import DownstreamSet, open_downstream
from metrics.score_release import Batch, Cache, Device, ExtractionScheduler, Out, SomeWorkers
from release.commands.command import run_command
from release.commands.options import Json, SchedulerFile, TlsCa, TlsCert, TlsKey, parse_seeds
from release.commands.validation import validated
from release.errors import UserError
from release.files.commit import canonical_json, sha256_text
from release.results.result import Result, environment

Networks = Annotated[
    list[str],
    typer.Argument(
        help="FILE.safetensors of train-classifier --save, a folder of such files, a folder of a "
        "timm model, or an extractor of score-release, such as timm:resnet50.a1_in1k."
    ),
]
On = Annotated[
    list[str],
    typer.Option(help="RELEASE:CONFIG[:TESTSPLIT] of real images to transfer to; repeat it."),
]
Evaluations = Annotated[
    str,
    typer.Option(
        help=f"Comma-separated; all: {', '.join(FROZEN)}. fine_tuning trains all weights instead."
    ),
]
TuningSteps = Annotated[
    int, typer.Option(min=1, help="Optimiser steps of each training of fine_tuning.")
]
TuningRates = Annotated[
    str, typer.Option(help="Learning rates of which fine_tuning takes the best on tuning images.")
]
Shots = Annotated[str, typer.Option(help="Images of each class that few_shot learns from.")]
Seeds = Annotated[str, typer.Option(help="One draw of the few images each.")]


@dataclass(frozen=True, kw_only=True)
class _Order:
    """What one command asks for, of every network and set."""

    sets: Sequence[DownstreamSet]
    asked: Asked
    cache: Path
    device: str
    batch: int
    cluster: ClusterOptions
    out: Path
    quiet: bool


def main() -> None:
    """Console entry point."""
    run_command(evaluate_representation)


def evaluate_representation(
    networks: Networks,
    on: On,
    out: Out = Path("results"),
    evaluations: Evaluations = "all",
    shots: Shots = "1,5,10",
    seeds: Seeds = "0,1,2,3,4",
    tuning_steps: TuningSteps = STEPS,
    tuning_rates: TuningRates = "0.0001,0.001,0.01,0.1",
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
    """Measure what frozen features are worth on other data sets; one result file each.

    The features of a set are computed once, for all evaluations, and kept in the cache. A probe
    chooses its strength on the tuning part, learns from train and is tested on test, or on
    validation where there is no test. Rerun a command that was interrupted: values that a result
    file already holds stay.

    Examples:

    \b
      evaluate-representation classifier.safetensors --on releases/digits-real:32
      evaluate-representation results/study/runs/generated timm:resnet18.a1_in1k \\
        --on releases/digits-real:32 --on releases/flowers-real:224
      evaluate-representation classifier.safetensors --on releases/digits-real:32 \\
        --evaluations few_shot --shots 1,2 --seeds 0,1,2
      evaluate-representation timm:resnet18.a1_in1k --on releases/flowers-real:224 \\
        --evaluations all,fine_tuning --tuning-rates 1e-3,1e-2,1e-1
    """
    require_places(batch, out, cache)
    tuning = FineTuning(tuning_steps, parse_rates(tuning_rates))
    asked = Asked.of(evaluations, parse_shots(shots), parse_seeds(seeds), tuning)
    order = _Order(
        sets=[open_downstream(text) for text in on],
        asked=asked,
        cache=cache,
        device=device,
        batch=batch,
        cluster=ClusterOptions(workers, scheduler, scheduler_file, tls_ca, tls_cert, tls_key),
        out=out,
        quiet=as_json,
    )
    named = name_networks(networks)
    for downstream in order.sets:
        asked.require_images(
            downstream.train_images(cache), *downstream.fewest(cache), downstream.label
        )
    written = dict(pair for network in named for pair in _evaluate(network, order))
    print_results(written, REPRESENTATION.names, as_json=as_json)


def parse_shots(text: str) -> tuple[int, ...]:
    """Ascending whole numbers above 0; UserError for others."""
    fields = [field.strip() for field in text.split(",")]
    if not all(field.isdecimal() and int(field) > 0 for field in fields):
        raise UserError(f"--shots {text!r}: give whole numbers above 0, such as 1,5,10")
    return tuple(sorted({int(field) for field in fields}))


def parse_rates(text: str) -> tuple[float, ...]:
    """Ascending numbers above 0; UserError for others."""
    try:
        rates = sorted({float(one) for one in text.split(",")})
    except ValueError:
        rates = []
    if not rates or not all(0 < rate < math.inf for rate in rates):
        raise UserError(f"--tuning-rates {text!r}: give numbers above 0, such as 1e-3,1e-2,1e-1")
    return tuple(rates)


def _evaluate(network: NamedNetwork, order: _Order) -> list[tuple[Path, Result]]:
    """One network on every set: all features first, then each result, written as it is there."""
    loaded = load_extractor(network.extractor, order.device, order.batch)
    image_sets = [part for s in order.sets for part in (s.train, s.test)]
    extract_sets(
        image_sets,
        network.extractor,
        loaded,
        order.device,
        order.cache,
        order.cluster,
        quiet=order.quiet,
    )
    return [_on_set(network, loaded, downstream, order) for downstream in order.sets]


def _on_set(
    network: NamedNetwork, loaded: Extractor, downstream: DownstreamSet, order: _Order
) -> tuple[Path, Result]:
    """Its result, with what stands in the file already and means the same."""
    path = order.out / f"{network.stem}-on-{downstream.label}.json"
    bare = _bare_result(network, loaded, downstream, order.cache)
    features = cached(lambda: downstream.features(loaded, order.cache))
    fine_tune = partial(order.asked.tuning.measure, downstream, loaded, order.cache)
    steps = order.asked.steps(features, fine_tune, str(loaded.device))
    return path, complete(path, bare, steps, REPRESENTATION.names)


def _bare_result(
    network: NamedNetwork, loaded: Extractor, downstream: DownstreamSet, cache: Path
) -> Result:
    """Without values."""
    subject = {
        "system": network.system,
        "sources": network.sources,
        "network": asdict(loaded.protocol),
    }
    sets = {part.split: part for part in (downstream.train, downstream.test)}
    images = {split: split_identity(part, loaded, cache) for split, part in sets.items()}
    manifest = downstream.train.manifest
    return Result(
        kind=REPRESENTATION.kind,
        dataset=manifest.dataset,
        subject=validated(EvaluationSubject, subject, network.extractor).content(),
        protocol={"features": "frozen, pooled", "precision": "float32"},
        reference={
            "name": manifest.name,
            "config": downstream.train.config,
            "split": downstream.test.split,
            "content_sha256": sha256_text(canonical_json(images)),
            "n": {split: part.count(cache) for split, part in sets.items()},
        },
        values={},
        seeds=network.seeds,
        environment=environment(),
    )


if __name__ == "__main__":
    main()
