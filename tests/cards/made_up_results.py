"""Result files with made-up numbers. They exist in tests alone, never among the results."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from classifiers.training.predictions import Predictions, accuracy_values
from release.results.result import Result

PROTOCOL = {"resolution": 32, "epochs": 10, "test_split": "test"}
SCORE_PROTOCOL = {"features": {"extractor": "efficientnet-lite0-64", "input_size": 64}}


def a_source(name: str, images: int, kind: str = "synthetic") -> dict[str, Any]:
    return {
        "name": name,
        "content_sha256": f"{name}-content",
        "config": "32",
        "split": "train",
        "images": images,
        "kind": kind,
        "regime": "B" if kind == "synthetic" else None,
    }


def a_classifier_result(
    train: Sequence[dict[str, Any]],
    top1: float,
    seed: int,
    *,
    dataset: str = "fixture",
    protocol: dict[str, Any] | None = None,
    per_class: Sequence[tuple[str, float]] = (),
    test_n: int = 500,
) -> Result:
    classes = [
        {"wnid": f"n{i:04d}", "name": name, "n": test_n, "top1": share, "interval": [0.0, 1.0]}
        for i, (name, share) in enumerate(per_class)
    ]
    return Result(
        kind="classifier",
        dataset=dataset,
        subject={"train": list(train), "model": "resnet10t", "recipe": "small"},
        protocol=protocol or PROTOCOL,
        reference={"name": "real", "content_sha256": "r" * 64, "config": "32", "split": "test"},
        values={
            "top1": {"value": top1, "n": 10_000, "interval": [top1 - 0.01, top1 + 0.01]},
            "top5": {"value": 0.99, "n": 10_000, "interval": [0.985, 0.995]},
            "per_class": classes,
        },
        seeds={"classifier": seed},
    )


def a_scores_result(source: dict[str, Any], fd: float, *, dataset: str = "fixture") -> Result:
    return Result(
        kind="scores",
        dataset=dataset,
        subject=source,
        protocol=SCORE_PROTOCOL,
        reference={},
        values={
            "fd_train": {
                "value": fd,
                "n": 1000,
                "reference_n": 60_000,
                "interval": [fd - 1, fd + 1],
            },
            "fd_test": {"value": fd + 1, "n": 1000, "reference_n": 10_000},
            "inception_score": {"value": 4.2, "n": 1000, "interval": [4.1, 4.3]},
        },
    )


def write_all(folder: Path, results: Sequence[Result]) -> Path:
    for number, result in enumerate(results):
        result.write(folder / f"{number}.json")
    return folder


def write_run(
    path: Path,
    train: Sequence[dict[str, Any]],
    correct: np.ndarray,
    labels: np.ndarray,
    names: Sequence[str],
    seed: int,
) -> Result:
    """A run that is right where `correct` bool[N] says: its result, and its predictions beside."""
    first = np.where(correct, labels, (labels + 1) % len(names))
    top = np.stack([first, (first + 1) % len(names)], axis=1).astype(np.int32)
    ids = tuple(f"i{i}" for i in range(len(labels)))
    predictions = Predictions(ids, labels, top, np.full(len(labels), 0.5, np.float32))
    made_up = a_classifier_result(train, 0.5, seed)
    wnids = [f"n{i:04d}" for i in range(len(names))]
    values = accuracy_values(predictions, wnids, names)
    result = replace(made_up, values={"top1": values["top1"], "per_class": values["per_class"]})
    result.write(path)
    predictions.write(path.with_suffix(".parquet"))
    return result


def labelled_fixture(folder: Path, classes: int, rows: int) -> Path:
    """`rows` sets, `classes` classes; generated images are bad for every tenth class.

    Real images and the best generated ones have three runs with predictions of 50 images a class,
    so that classes can be told apart; the other sets have one run without.
    """
    random = np.random.default_rng(0)
    names = [f"made-up class number {i}" for i in range(classes)]
    tenth = np.arange(classes) % 10 == 0
    labels = np.repeat(np.arange(classes), 50)
    hardness = random.random(len(labels))

    def write_runs(source: dict[str, Any], mean: float, of_tenth: float) -> None:
        rates = np.where(tenth, of_tenth, mean)[labels]
        for seed in range(3):
            correct = (hardness < rates) ^ (random.random(len(labels)) < 0.01)
            write_run(
                folder / f"{source['name']}-{seed}.json", [source], correct, labels, names, seed
            )

    def accuracies(mean: float, of_tenth: float) -> list[tuple[str, float]]:
        shares = random.binomial(50, np.where(tenth, of_tenth, mean)) / 50
        return list(zip(names, shares.tolist(), strict=True))

    sources = [a_source(f"made-up set {i}", 1000) for i in range(rows - 1)]
    write_runs(a_source("made-up real", 1000, "real"), 0.76, 0.76)
    write_runs(sources[-1], 0.5 + (rows - 2) / 100, 0.2)
    generated = [
        a_classifier_result(
            [source], 0.4 + i / 100, 0, per_class=accuracies(0.5 + i / 100, 0.2), test_n=50
        )
        for i, source in enumerate(sources[:-1])
    ]
    scores = [a_scores_result(source, 30.0 - i / 2) for i, source in enumerate(sources)]
    return write_all(folder, [*generated, *scores])
