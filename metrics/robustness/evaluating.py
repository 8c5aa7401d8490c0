"""The evaluation of classifiers on shifted and corrupted sets: a result of each."""

import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np

from builder.cluster.cluster import ClusterOptions
from metrics.evaluation import EvaluationSubject, Step, complete
from metrics.features.extraction import extract_sets
from metrics.features.extractors import load_extractor
from metrics.features.image_lists import ImageSet, open_image_set, read_image_list
from metrics.features.named_networks import NamedNetwork, name_networks
from metrics.features.release_features import split_identity
from metrics.robustness.corruption import Corruption
from metrics.robustness.corruptions import ALL, CORRUPTIONS, FROST
from metrics.robustness.distinct import require_distinct, require_other_images
from metrics.robustness.effective import SETTINGS as EFFECTIVE
from metrics.robustness.effective import effective_robustness
from metrics.robustness.evaluation import (
    ROBUSTNESS,
    STANDARD,
    corruption_step,
    of_classes,
    top1_step,
)
from metrics.robustness.frost import LEFT_OUT, read_textures
from metrics.robustness.masked import Masked
from metrics.robustness.real_labels import SETTINGS as REAL
from metrics.robustness.real_labels import real_accuracy
from release.commands.validation import validated
from release.errors import UserError
from release.files.commit import canonical_json, sha256_text
from release.files.storage import release_path, split_release
from release.layout.manifest import read_manifest
from release.results.result import Result, environment
from release.results.statistics import share

HELD_OUT = ("test", "validation")


@dataclass(frozen=True, kw_only=True)
class Order:
    """What one command asks for, of every network."""

    test: ImageSet
    shifted: Sequence[ImageSet]
    corruptions: Sequence[str]
    known_corruptions: Mapping[str, Corruption]
    real_labels: list[list[int]] | None
    cache: Path
    device: str
    batch: int
    cluster: ClusterOptions
    out: Path
    quiet: bool


@dataclass(frozen=True)
class _Opened:
    """A network with its sets; features are there."""

    network: NamedNetwork
    test: Masked
    shifted: tuple[Masked, ...]

    @cached_property
    def accuracies(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """Of each shifted set: which standard images of its classes and which of it are right."""
        return [(of_classes(self.test, own), own.correct()[0]) for own in self.shifted]


@dataclass(frozen=True)
class _OnLine:
    """A real-trained network: its name, the hash of its weights, and accuracies as above."""

    system: str
    weights: str
    accuracies: list[tuple[np.ndarray, np.ndarray]]

    @classmethod
    def of(cls, opened: _Opened) -> "_OnLine":
        """Without the network, so that a line of many takes no memory."""
        weights = opened.test.extractor.protocol.weights_sha256
        return cls(opened.network.system, weights, opened.accuracies)


def evaluate_all(
    networks: Sequence[str], real_trained: Sequence[str], order: Order
) -> dict[Path, Result]:
    """Results of `networks` by path; the line of effective robustness is that of `real_trained`."""
    _require_classes_of_test(order)
    require_distinct(order.test, order.shifted, order.cache)
    named, line_named = name_networks(networks), name_networks(real_trained)
    if len(line_named) == 1 or (line_named and not order.shifted):
        raise UserError("--real-trained: name two or more, and the sets with --shifted")
    line = [_OnLine.of(_open(network, order)) for network in line_named]
    return dict(pair for network in named for pair in _evaluate(network, line, order))


def open_set(text: str, option: str) -> ImageSet:
    """Of a real release; SPLIT is by default test, or validation where there is no test."""
    name, parts = split_release(text)
    if len(parts) not in (1, 2) or not all((name, *parts)):
        raise UserError(f"{option} {text!r}: give RELEASE:CONFIG, such as releases/digits:32")
    path = release_path(name)
    manifest = read_manifest(path)
    if manifest.kind != "real":
        raise UserError(f"{option} {name} is not real: accuracy is measured on real images")
    known = manifest.splits().get(parts[0], HELD_OUT)
    split = next((split for split in HELD_OUT if split in known), HELD_OUT[0])
    return open_image_set(path, parts[0], parts[1] if len(parts) > 1 else split)


def known_corruptions(
    wanted: str, frost_textures: Path | None, config: str
) -> dict[str, Corruption]:
    """With frost, if its photographs are named; UserError if they are and it is not wanted."""
    names = [name.strip() for name in wanted.split(",")]
    if frost_textures is None:
        if ALL in names:
            print(LEFT_OUT, file=sys.stderr)
        return CORRUPTIONS
    if not {ALL, FROST} & set(names):
        raise UserError("--frost-textures is for frost: name it, or all, in --corruptions")
    textures = read_textures(frost_textures)
    textures.require_larger(int(config) if config.isdecimal() else 0)
    return CORRUPTIONS | {FROST: textures.corruption}


def _require_classes_of_test(order: Order) -> None:
    """UserError for a shifted set with a class that the standard test lacks."""
    known = {entry.wnid for entry in order.test.manifest.classes}
    for shifted in order.shifted:
        for entry in shifted.manifest.classes:
            if entry.wnid not in known:
                raise UserError(
                    f"--shifted {shifted.label} has class {entry.wnid!r}, which --test "
                    f"{order.test.label} has not; import it by that class list (build-dataset "
                    "--real … --classes-from)"
                )


def _open(network: NamedNetwork, order: Order) -> _Opened:
    """With the features of all sets."""
    loaded = load_extractor(network.extractor, order.device, order.batch)
    test, *shifted = (Masked.of(s, loaded, order.cache) for s in (order.test, *order.shifted))
    extract_sets(
        [order.test, *order.shifted],
        network.extractor,
        loaded,
        order.device,
        order.cache,
        order.cluster,
        quiet=order.quiet,
    )
    # the same pixels may be encoded otherwise, which shows only now
    require_other_images(
        order.test, order.shifted, order.cache, lambda s: split_identity(s, loaded, order.cache)
    )
    test = replace(test, corruptions=order.known_corruptions)
    return _Opened(network, test, tuple(shifted))


def _evaluate(
    network: NamedNetwork, line: Sequence[_OnLine], order: Order
) -> Iterator[tuple[Path, Result]]:
    """Each result, written as its values are there."""
    opened = _open(network, order)
    yield _complete(opened, opened.test, _standard_steps(opened.test, order), order)
    for place, shifted in enumerate(opened.shifted):
        yield _complete(opened, shifted, _shifted_steps(opened, place, line), order)


def _complete(
    opened: _Opened, masked: Masked, steps: dict[str, Step], order: Order
) -> tuple[Path, Result]:
    manifest = masked.image_set.manifest
    label = f"{manifest.name}-{masked.image_set.config}-{masked.image_set.split}"
    path = order.out / f"{opened.network.stem}-robustness-on-{label}.json"
    return path, complete(path, _bare_result(opened.network, masked), steps, ROBUSTNESS.names)


def _standard_steps(test: Masked, order: Order) -> dict[str, Step]:
    steps = {"top1": top1_step(test)}
    if order.real_labels is not None:
        labels = {"labels_sha256": sha256_text(canonical_json(order.real_labels))}
        steps["real_labels"] = Step(partial(_real_labels, test, order.real_labels), REAL | labels)
    return steps | {name: corruption_step(name, test) for name in order.corruptions}


def _real_labels(test: Masked, labels: list[list[int]]) -> dict[str, Any]:
    shards = test.image_set.shards()
    lists = [read_image_list(test.image_set, shard, test.cache) for shard in shards]
    image_ids = [image_id for images in lists for image_id in images.image_ids]
    return real_accuracy(image_ids, test.predicted(), labels)


def _shifted_steps(opened: _Opened, place: int, line: Sequence[_OnLine]) -> dict[str, Step]:
    test = opened.test
    beside = {"standard_sha256": split_identity(test.image_set, test.extractor, test.cache)}
    steps = {
        "top1": top1_step(opened.shifted[place]),
        "standard_top1": Step(lambda: share(opened.accuracies[place][0]), STANDARD | beside),
    }
    if line:
        names = [{"system": own.system, "weights": own.weights} for own in line]
        steps["effective_robustness"] = Step(
            partial(_effective, opened, place, line), EFFECTIVE | beside | {"real_trained": names}
        )
    return steps


def _effective(opened: _Opened, place: int, line: Sequence[_OnLine]) -> dict[str, Any]:
    standard, shifted = zip(*(own.accuracies[place] for own in line), strict=True)
    return effective_robustness(*opened.accuracies[place], np.stack(standard), np.stack(shifted))


def _bare_result(network: NamedNetwork, masked: Masked) -> Result:
    """Without values."""
    protocol = masked.extractor.protocol
    subject = {
        "system": network.system,
        "sources": network.sources,
        "network": asdict(protocol),
    }
    image_set = masked.image_set
    return Result(
        kind=ROBUSTNESS.kind,
        dataset=image_set.manifest.dataset,
        subject=validated(EvaluationSubject, subject, network.extractor).content(),
        protocol={"views": "one, as stored", "precision": "float32"},
        reference={
            "name": image_set.manifest.name,
            "config": image_set.config,
            "split": image_set.split,
            "content_sha256": split_identity(image_set, masked.extractor, masked.cache),
            "n": image_set.count(masked.cache),
        },
        values={},
        seeds=network.seeds,
        environment=environment(),
    )
