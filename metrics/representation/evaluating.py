"""The evaluation of networks on downstream sets: features of all, then a result of each."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cache as cached
from functools import partial
from pathlib import Path

from builder.cluster.cluster import ClusterOptions
from metrics.evaluation import EvaluationSubject, complete
from metrics.features.extraction import extract_sets
from metrics.features.extractors import Extractor, load_extractor
from metrics.features.named_networks import NamedNetwork, name_networks
from metrics.features.release_features import split_identity
from metrics.representation.evaluation import REPRESENTATION, Asked
from metrics.representation.parts import DownstreamSet
from release.commands.validation import validated
from release.files.commit import canonical_json, sha256_text
from release.results.result import Result, environment


@dataclass(frozen=True, kw_only=True)
class Order:
    """What one command asks for, of every network and set."""

    sets: Sequence[DownstreamSet]
    asked: Asked
    cache: Path
    device: str
    batch: int
    cluster: ClusterOptions
    out: Path
    quiet: bool


def evaluate_all(networks: Sequence[str], order: Order) -> dict[Path, Result]:
    """Results by path; UserError for a set that is too small, before features are there."""
    named = name_networks(networks)
    for downstream in order.sets:
        order.asked.require_images(
            downstream.train_images(order.cache),
            *downstream.fewest(order.cache),
            downstream.label,
        )
    return dict(pair for network in named for pair in _evaluate(network, order))


def _evaluate(network: NamedNetwork, order: Order) -> list[tuple[Path, Result]]:
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
    network: NamedNetwork, loaded: Extractor, downstream: DownstreamSet, order: Order
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
