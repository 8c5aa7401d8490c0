"""Do the metrics move the right way? Deliberate corruptions of real Fashion-MNIST test images.

Reference: real train images, as many of each class. Each corruption names the metrics that must
move and whereto; a metric has moved if its value lies outside the 95% interval of the untouched
images. Writes OUT.json and OUT.md (a table); the last line is one JSON object, `right` of `moves`.

    python benchmarks/trust/corruptions.py --real releases/fashion-mnist-real \\
      --out results/fashion-mnist/corruptions
"""

import argparse
import io
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageFilter

from metrics.features.extractors import DEFAULT_EXTRACTOR, Extractor, load_extractor
from metrics.features.mergeable import sampling_keys
from metrics.features.release_features import FeatureBlock
from metrics.scoring.metric import WholeSet
from metrics.scoring.metric_list import METRICS, STATE_KINDS
from metrics.states.copies import copy_values, nearest_images
from metrics.states.sample import Sample
from release.layout.image_sets import LabelledImages, first_of_each, load_images
from release.layout.manifest import read_manifest
from release.results.result import environment

CLASSES = 10
SHOWN = [
    *("fd", "kid", "cmmd", "class_kid", "inception_score"),
    *("precision", "recall", "density", "coverage", "vendi", "copies"),
]
WORSE = {"fd": "up", "kid": "up", "cmmd": "up", "precision": "down"}


@dataclass(frozen=True)
class Corruption:
    """change: images and labels of (test images, train images, random numbers)."""

    description: str
    expected: dict[str, str]
    change: Callable[
        [np.ndarray, np.ndarray, np.ndarray, np.random.Generator], tuple[np.ndarray, np.ndarray]
    ]


def each(change: Callable[[Image.Image], Image.Image]) -> Any:
    """A corruption of every image by itself."""

    def apply(images: np.ndarray, labels: np.ndarray, *_: Any) -> tuple[np.ndarray, np.ndarray]:
        changed = [np.asarray(change(Image.fromarray(image))) for image in images]
        return np.stack(changed), labels

    return apply


def jpeg(image: Image.Image) -> Image.Image:
    sink = io.BytesIO()
    image.save(sink, "jpeg", quality=5)
    return Image.open(sink).convert("RGB")


def coarse(image: Image.Image) -> Image.Image:
    small = image.resize((8, 8), Image.Resampling.BOX)
    return small.resize(image.size, Image.Resampling.NEAREST)


def noise(images: np.ndarray, labels: np.ndarray, _: Any, rng: np.random.Generator) -> Any:
    grey = rng.normal(scale=25, size=(*images.shape[:3], 1))
    return (images + grey).clip(0, 255).astype(np.uint8), labels


def occlusion(images: np.ndarray, labels: np.ndarray, _: Any, rng: np.random.Generator) -> Any:
    changed = images.copy()
    for image, (row, column) in zip(changed, rng.integers(4, 16, (len(images), 2)), strict=True):
        image[row : row + 12, column : column + 12] = 0
    return changed, labels


def class_drop(images: np.ndarray, labels: np.ndarray, *_: Any) -> Any:
    kept = np.flatnonzero(labels < CLASSES // 2)
    rows = np.resize(kept, len(images))  # as many as before
    return images[rows], labels[rows]


def duplicates(images: np.ndarray, labels: np.ndarray, *_: Any) -> Any:
    rows = np.arange(len(images)) // 10 * 10
    return images[rows], labels[rows]


def mode_collapse(images: np.ndarray, labels: np.ndarray, *_: Any) -> Any:
    first = np.array([np.flatnonzero(labels == c)[0] for c in range(CLASSES)])
    return images[first[labels]], labels


def shuffled_labels(images: np.ndarray, labels: np.ndarray, _: Any, rng: Any) -> Any:
    return images, rng.permutation(labels)


def memorised(images: np.ndarray, labels: np.ndarray, train: np.ndarray, _: Any) -> Any:
    half = len(images) // 2
    return np.concatenate([train[:half], images[half:]]), labels


CORRUPTIONS = {
    "blur": Corruption(
        "Gaussian blur, 1.5 px",
        WORSE,
        each(lambda image: image.filter(ImageFilter.GaussianBlur(1.5))),
    ),
    "noise": Corruption("Gaussian noise, 25 grey levels", WORSE, noise),
    "jpeg": Corruption("JPEG, quality 5", WORSE, each(jpeg)),
    "coarse": Corruption("8 by 8 blocks", WORSE, each(coarse)),
    "contrast": Corruption(
        "a third of the contrast",
        WORSE,
        each(lambda image: Image.eval(image, lambda level: 85 + level // 3)),
    ),
    "occlusion": Corruption("a black square of 12 px", WORSE, occlusion),
    "class drop": Corruption(
        "five of ten classes, each image twice",
        {"fd": "up", "kid": "up", "recall": "down", "coverage": "down", "vendi": "down"},
        class_drop,
    ),
    "duplicates": Corruption(
        "a tenth of the images, each ten times",
        {"fd": "up", "recall": "down", "coverage": "down", "vendi": "down"},
        duplicates,
    ),
    "mode collapse": Corruption(
        "one image a class",
        {"fd": "up", "kid": "up", "recall": "down", "coverage": "down", "vendi": "down"},
        mode_collapse,
    ),
    "shuffled labels": Corruption("labels at random", {"class_kid": "up"}, shuffled_labels),
    "memorised": Corruption("half of the images from train", {"copies": "up"}, memorised),
}


def main() -> None:
    arguments = parse_arguments()
    rng = np.random.default_rng(arguments.seed)
    train = balanced(arguments.real, "train", arguments.reference)
    test = balanced(arguments.real, "test", 2 * arguments.n)
    order = rng.permutation(len(test.labels))
    chosen, held_out = order[: arguments.n], order[arguments.n :]
    extractor = load_extractor(DEFAULT_EXTRACTOR, "cpu")
    judge = Judge(
        extractor,
        block_of(extractor, train.images, train.labels, "train"),
        block_of(extractor, test.images[held_out], test.labels[held_out], "held-out"),
    )
    images, labels = test.images[chosen], test.labels[chosen]
    rows: dict[str, dict[str, Any]] = {"none": judge.values(images, labels)}
    for name, corruption in CORRUPTIONS.items():
        rows[name] = judge.values(*corruption.change(images, labels, train.images, rng))
        print(name, {key: round(rows[name][key]["value"], 4) for key in SHOWN}, flush=True)
    moves = {
        name: {key: moved(rows["none"][key], rows[name][key]) for key in corruption.expected}
        for name, corruption in CORRUPTIONS.items()
    }
    right = [
        moves[name][key] == way
        for name, c in CORRUPTIONS.items()
        for key, way in c.expected.items()
    ]
    report = {
        "n": len(images),
        "reference_n": len(train.labels),
        "seed": arguments.seed,
        "dataset": "fashion-mnist",
        "content_sha256": read_manifest(arguments.real).content_sha256,
        "config": "32",
        "extractor": extractor.protocol.extractor,
        "protocol_sha256": extractor.protocol.sha256,
        "corruptions": {
            name: {"description": c.description, "expected": c.expected, "moved": moves[name]}
            for name, c in CORRUPTIONS.items()
        },
        "values": rows,
        "environment": environment(),
    }
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.with_suffix(".json").write_text(json.dumps(report, indent=1) + "\n")
    arguments.out.with_suffix(".md").write_text(table(report))
    print(json.dumps({"right": sum(right), "moves": len(right), "n": len(images)}))


def balanced(real: Path, split: str, n: int) -> LabelledImages:
    images = load_images(real, "32", split)
    return images.take(first_of_each(images.labels, [n // CLASSES] * CLASSES))


def block_of(
    extractor: Extractor, images: np.ndarray, labels: np.ndarray, prefix: str
) -> FeatureBlock:
    found = extractor.extract(images)
    keys = sampling_keys([f"{prefix}-{i}" for i in range(len(images))])
    return FeatureBlock(keys, labels, found.features, found.logits, found.spatial)


class Judge:
    """All metrics of a set of images against one reference."""

    def __init__(self, extractor: Extractor, train: FeatureBlock, held_out: FeatureBlock):
        self.extractor, self.train = extractor, train
        self.states = {
            name: STATE_KINDS[name].prepare(STATE_KINDS[name].keep(self.state(name, train)))
            for name in ("moments", "unit_moments", "sample", "classes")
        }
        sample: Sample = self.state("sample", held_out)
        self.calibration = nearest_images(sample, [train])

    def state(self, kind: str, block: FeatureBlock) -> Any:
        per_class = np.bincount(block.labels, minlength=CLASSES)
        whole = WholeSet(np.sort(block.keys), per_class, sample=10_000, logit_columns=None)
        return STATE_KINDS[kind].of_block(block, whole)

    def values(self, images: np.ndarray, labels: np.ndarray) -> dict[str, dict[str, Any]]:
        block = block_of(self.extractor, images, labels, "image")
        found: dict[str, dict[str, Any]] = {}
        for name in ("fd", "kid", "cmmd", "classes", "prdc"):
            metric = METRICS[name]
            found |= metric.values(self.state(metric.kind, block), self.states[metric.kind])
        for name in ("is", "vendi"):
            found |= METRICS[name].values(self.state(METRICS[name].kind, block))
        sample = self.state("sample", block)
        found |= copy_values(sample, nearest_images(sample, [self.train]), self.calibration)
        return {key: {k: found[key][k] for k in ("value", "n", "interval")} for key in SHOWN}


def moved(before: dict[str, Any], after: dict[str, Any]) -> str:
    low, high = before["interval"]
    return "up" if after["value"] > high else "down" if after["value"] < low else "not"


def table(report: dict[str, Any]) -> str:
    lines = [
        f"Fashion-MNIST at 32 px, {report['n']:,} real test images against "
        f"{report['reference_n']:,} real train images, extractor {report['extractor']}; distances "
        "are not FID. Bold: must move, and did, outside the 95% interval of the untouched images; "
        "struck through: must have moved and did not.",
        "",
        "| corruption | " + " | ".join(name.replace("_", " ") for name in SHOWN) + " |",
        "|---|" + "---|" * len(SHOWN),
    ]
    for name, values in report["values"].items():
        corruption = report["corruptions"].get(name, {"expected": {}, "moved": {}})
        cells = []
        for key in SHOWN:
            text = f"{values[key]['value']:.4g}"
            if key in corruption["expected"]:
                fits = corruption["moved"][key] == corruption["expected"][key]
                text = f"**{text}**" if fits else f"~~{text}~~"
            cells.append(text)
        what = f"{name}: {corruption['description']}" if name != "none" else "none"
        lines.append(f"| {what} | " + " | ".join(cells) + " |")
    low_high = [
        f"{v['interval'][0]:.4g} … {v['interval'][1]:.4g}"
        for v in report["values"]["none"].values()
    ]
    lines.append("| none, 95% interval | " + " | ".join(low_high) + " |")
    return "\n".join(lines) + "\n"


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--real", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True, help="without suffix")
    parser.add_argument("--n", type=int, default=1000)
    parser.add_argument("--reference", type=int, default=4000)
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


if __name__ == "__main__":
    main()
