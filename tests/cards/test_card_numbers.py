"""Each number in a card stands in the manifest or a result file, or follows from them plainly."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import pytest

from cards.card.body import SNIPPET, card_body
from cards.card.columns import COLUMNS
from cards.card.facts import METHOD, REGIMES, limits
from cards.drawing.sample_grid import read_groups
from cards.pages.page import TEMPLATES
from cards.render_card import picture_names
from release.layout.manifest import Manifest, read_manifest
from release.results.result import Result
from tests.cards.tiny_card import CLASSES, DAY

NUMBER = re.compile(r"(?<![\w#])-?\d[\d,]*(?:\.\d+)?(?:e[+-]?\d+)?")
PERCENT = ("{:.0%}", "{:.1%}", "{:.2%}")
SHOWN = ("{}", "{:,}", "{:.1f}", "{:.2f}", "{:.3f}", "{:.4f}", "{:.3g}")
REAL = {"name": "real", "content_sha256": "r" * 64, "config": "16", "split": "train"}
REAL |= {"images": 7531, "kind": "real", "regime": None}
MADE_WITH = {"device": "cpu", "versions": {"torch": "2.15.0", "timm": "1.0.31"}}
ALONE = (0.8013, 0.8372)  # top-1 of two seeds


def source_of(manifest: Manifest) -> dict[str, Any]:
    facts = {"name": manifest.name, "content_sha256": manifest.content_sha256, "config": "16"}
    return facts | {"split": "train", "images": 18, "kind": "synthetic", "regime": "B"}


def accuracies(top1: float, seed: int, *train: dict[str, Any]) -> Result:
    per_class = [
        {"wnid": c.wnid, "name": c.name, "n": 1073, "top1": top1 - 0.113 * c.label} for c in CLASSES
    ]
    return Result(
        kind="classifier",
        dataset="fashion-mnist",
        subject={"train": list(train), "model": "resnet10t", "recipe": "small"},
        protocol={"epochs": 3, "learning_rate": 0.29},
        reference={"name": "real", "n": 3219},
        values={
            "top1": {"value": top1, "n": 3219, "interval": [top1 - 0.0213, top1 + 0.0187]},
            "top5": {"value": 0.9731, "n": 3219, "interval": [0.9613, 0.9812]},
            "per_class": per_class,
        },
        seeds={"classifier": seed},
        environment=MADE_WITH,
    )


def scores(source: dict[str, Any]) -> Result:
    """Every kind of value that a card shows."""
    per_class = [
        {"wnid": c.wnid, "name": c.name, "n": 6 + c.label, "interval": [0.2141, 0.9382]}
        | {"value": 0.513 + 0.117 * c.label}
        for c in CLASSES
    ]
    pairs = [{"image": "bag-000000", "nearest": f"real-{i}", "distance": 3.71 + i} for i in (0, 4)]
    low, high = [0.41, 0.83], [401.136, 461.408]
    return Result(
        kind="scores",
        dataset="fashion-mnist",
        subject=source,
        protocol={"features": {"extractor": "tiny", "input_size": 77}},
        reference={"name": "real", "n": {"train": 6543, "test": 3219}},
        values={
            "fd_train": {"value": 431.272, "n": 18, "interval": high, "bias": 3.3},
            "inception_score": {"value": 7.6543, "n": 18, "interval": None},
            "agreement": {"value": 0.6351, "n": 18, "interval": low, "per_class": per_class},
            "class_kid_test": {"value": 0.2718, "n": 18, "per_class": per_class},
            "copies_train": {"value": 0.0345, "n": 18, "interval": low, "expected": 0.01},
            "nearest_train": {"value": 5.4321, "n": 18, "pairs": pairs},
        },
        environment=MADE_WITH,
    )


@pytest.fixture
def results(release: Path, tmp_path: Path) -> Path:
    """Two seeds on the release alone, one on real images, one on both; distances and failures."""
    these = source_of(read_manifest(release))
    folder = tmp_path / "results"
    for seed, top1 in enumerate(ALONE):
        accuracies(top1, seed, these).write(folder / f"alone-{seed}.json")
    accuracies(0.9046, 0, REAL).write(folder / "real.json")
    accuracies(0.9188, 0, REAL, these).write(folder / "both.json")
    scores(these).write(folder / "scores.json")
    return folder


def body_of(release: Path, results: Path) -> str:
    pictures = picture_names(read_groups(release))
    return card_body(read_manifest(release), pictures, results, "./garments", DAY)


def numbers_in(value: Any) -> Iterator[float | int]:
    """Of JSON, those in its texts included."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from numbers_in(key)
            yield from numbers_in(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from numbers_in(inner)
    elif isinstance(value, str):
        yield from (json.loads(text) for text in re.findall(r"[1-9]\d*\.\d+|[1-9]\d*", value))
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield value


def derived(manifest: Manifest) -> Iterator[float | int]:
    """Counts over shards and classes, and what two seeds come to."""
    yield from (manifest.rows("16", "train"), len(manifest.classes), len(manifest.origin["stages"]))
    yield from manifest.per_class("16", "train").values()
    yield sum(shard.bytes for shard in manifest.shards) / 1e6
    yield from (fmean(ALONE), stdev(ALONE), 100 * stdev(ALONE))
    yield from (fmean(ALONE) - 0.113 * c.label for c in CLASSES)
    yield DAY.year


def unknown_numbers(body: str, release: Path, results: Path) -> set[str]:
    """Numbers of the card that stand neither in a file nor in the card's own fixed text."""
    files = [release / "manifest.json", *sorted(results.glob("*.json"))]
    known = [n for file in files for n in numbers_in(json.loads(file.read_text()))]
    known += derived(read_manifest(release))
    shown = {form.format(n) for n in known for form in SHOWN}
    shown |= {form.format(n).rstrip("%") for n in known for form in PERCENT}
    manifest = read_manifest(release)
    fixed = [(TEMPLATES / "card.md").read_text(), SNIPPET, METHOD, *REGIMES.values()]
    fixed += [*COLUMNS.values(), *limits(manifest)]
    said = {n for text in fixed for n in NUMBER.findall(text)}
    prose = re.sub(r"\b[0-9a-f]{12,64}\b|\w+-\d{6}\b", "", body)  # hashes, image ids
    return {n.rstrip(",") for n in NUMBER.findall(prose)} - shown - said


def test_each_number_is_found(release: Path, results: Path) -> None:
    body = body_of(release, results)
    assert unknown_numbers(body, release, results) == set()
    for shown in (
        "81.92 ± 2.54 | 97.31 ± 0.00 | 90.46 [88.33, 92.33] | 7,531 | 3,219",
        "| real 7,531 + these 18 | 1 | 91.88 [89.75, 93.75]",
        "| FD to train | 431.3 [401.1, 461.4] | 18 |",
        "Bag 51.3% of 6 [21.4, 93.8], Ankle boot 63.0% of 7",
        "3.5% [41.0, 83.0] of 18 images lie nearer to a training image",
        "a generator that copies nothing has 1%",
        "`bag-000000` to `real-0` (3.71)",
        "\n- As the only training images: resnet10t reaches 81.92% top-1 with these 18, 90.46% "
        "with 7,531 real images alone. Against real images alone: no clear difference.",
        "reaches 91.88% top-1 with real 7,531 + these 18, 90.46% with 7,531 real images alone. "
        "Against real images alone: no clear difference.",
        "features.input_size 77",
        "measured with torch 2.15.0, timm 1.0.31, cpu",
    ):
        assert shown in body
    assert "Not measured" not in body


@pytest.mark.parametrize("wrong", ["431.4", "81.94", "3,220", "0.287", "63.1%"])
def test_a_number_from_nowhere_is_noticed(release: Path, results: Path, wrong: str) -> None:
    body = body_of(release, results) + f"\nIt is {wrong} now."
    assert unknown_numbers(body, release, results) == {wrong.rstrip("%")}
