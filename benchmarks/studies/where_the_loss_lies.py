"""What of an image the distance of a super-resolution stage comes from: background or garment.

    build-dataset --real fashion-mnist
    python benchmarks/studies/where_the_loss_lies.py --real releases/fashion-mnist-real \
        --checkpoint builtin:fashion-mnist-32 --out results/fashion-mnist/where-the-loss-lies.json

Fréchet distances to all of train, of images that differ in one thing each from the tuning images,
the first of each class: noise of some grey levels in all pixels or in those that are not black,
details lost, or made anew by the stage from the real parents. The last line is one JSON object.
"""

import argparse
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from generation.diffusion.sampler_config import SamplerConfig
from generation.families.pixel_unet.generator import load, locate, sha256
from generation.generator import ImageBatch, Screened
from metrics.cache_folder import CACHE
from metrics.features.extractors import DEFAULT_EXTRACTOR, Extractor, load_extractor
from metrics.features.image_lists import open_image_set
from metrics.features.mergeable import merge_all
from metrics.features.release_features import iterate_features
from metrics.states.frechet import GaussianReference, Moments
from release.classes.class_list import load_classes
from release.files.storage import release_path
from release.layout.image_sets import LabelledImages, first_of_each, load_images

BATCH = 50
SEED = 77_000
BLACK = 6  # grey levels that few real pixels have


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--real", required=True, help="release of real images, 16 and 32 px")
    parser.add_argument("--checkpoint", default="builtin:fashion-mnist-32")
    parser.add_argument("--steps", type=int, default=16, help="of DPM-Solver++")
    parser.add_argument("--per-class", type=int, default=100)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    extractor = load_extractor(DEFAULT_EXTRACTOR, "cpu")
    train = train_statistics(arguments.real, extractor)
    images, parents = tuning_images(arguments.real, arguments.per_class)
    made, seconds = enlarged(arguments.checkpoint, arguments.steps, parents)
    rows = []
    for name, changed in [
        *disturbed(images.images, parents.images),
        *without(made, parents.images),
    ]:
        rows.append(row(name, changed, extractor, train))
        print(json.dumps(rows[-1]), flush=True)
    answer = {
        "n": len(images),
        "reference": "train",
        "extractor": DEFAULT_EXTRACTOR,
        "protocol_sha256": extractor.protocol.sha256,
        "checkpoint": arguments.checkpoint,
        "checkpoint_sha256": sha256(locate(arguments.checkpoint)),
        "sampler": f"dpm-solver++, {arguments.steps} steps, seeds from {SEED}",
        "sampling_cpu_seconds": round(seconds),
        "rows": rows,
    }
    arguments.out.write_text(json.dumps(answer, indent=2) + "\n")
    print(json.dumps({"out": str(arguments.out), "rows": len(rows)}))


def train_statistics(real: str, extractor: Extractor) -> GaussianReference:
    """Of all train images at 32 px; their features stay in the cache of score-release."""
    blocks = iterate_features(open_image_set(release_path(real), "32", "train"), extractor, CACHE)
    return GaussianReference.from_moments(
        merge_all(Moments.from_features(block.features) for block in blocks)
    )


def tuning_images(real: str, per_class: int) -> tuple[LabelledImages, LabelledImages]:
    """The first of each class, at 32 px and at 16."""
    own, parents = (load_images(release_path(real), side, "tuning") for side in ("32", "16"))
    rows = first_of_each(own.labels, [per_class] * len(own.class_ids))
    return own.take(rows), parents.take(rows)


def disturbed(images: np.ndarray, parents: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
    """Real images, uint8[N,32,32,3], and what is changed of them."""
    yield "real", images
    for level in (1, 2, 4):
        noise = np.random.default_rng(0).normal(0, level, images.shape[:3])[..., None]
        noisy = np.clip(np.rint(images + noise), 0, 255).astype(np.uint8)
        yield f"real, noise of {level} levels in all pixels", noisy
        yield f"real, noise of {level} levels, black pixels kept", np.where(images > 0, noisy, 0)
    yield f"real, levels to {BLACK} made black", np.where(images <= BLACK, 0, images)
    yield "real parents, each pixel repeated", blocks(parents)


def without(made: np.ndarray, parents: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
    """The stage's images of real parents, and what is taken off them."""
    yield "stage", made
    for level in (2, 4, 8):
        yield f"stage, levels to {level} made black", np.where(made <= level, 0, made)
    yield "stage, black where the parent is", np.where(blocks(parents) == 0, 0, made)
    means = made.reshape(len(made), 16, 2, 16, 2, 3).mean(axis=(2, 4))
    moved = np.rint(made + blocks(parents - means))
    yield "stage, means of blocks set to the parent", np.clip(moved, 0, 255).astype(np.uint8)


def blocks(parents: np.ndarray) -> np.ndarray:
    """[N,16,16,3], each pixel repeated, to [N,32,32,3]."""
    return parents.repeat(2, axis=1).repeat(2, axis=2)


def enlarged(checkpoint: str, steps: int, parents: LabelledImages) -> tuple[np.ndarray, float]:
    """What the stage makes of the parents, uint8[N,32,32,3], and the processor's seconds."""
    generator = load(locate(checkpoint), compiled=False)
    settings = SamplerConfig(method="dpm-solver++", steps=steps)
    prompts = [entry.prompt for entry in load_classes("fashion-mnist")]
    before, made = time.process_time(), []
    for start in range(0, len(parents), BATCH):
        labels = parents.labels[start : start + BATCH].tolist()
        seeds = range(SEED + start, SEED + start + len(labels))
        batch = ImageBatch(
            [prompts[label] for label in labels],
            *(labels, seeds, parents.images[start : start + BATCH], 32),
        )
        found = generator.sample(batch, settings)
        assert not isinstance(found, Screened), "an image is not finite"
        made.append(found)
    return np.concatenate(made), time.process_time() - before


def row(
    name: str, images: np.ndarray, extractor: Extractor, train: GaussianReference
) -> dict[str, Any]:
    """The distance, and which shares of all pixels are black, or nearly."""
    moments = Moments.from_features(extractor.extract(images).features)
    return {
        "images": name,
        "fd_train": round(train.distance(moments), 1),
        "black": round(float((images == 0).mean()), 4),
        "levels 1 to 3": round(float(((images > 0) & (images < 4)).mean()), 4),
    }


if __name__ == "__main__":
    main()
