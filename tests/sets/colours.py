"""Many classes that colour alone tells apart, as a real release; a classifier of them."""

import colorsys
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from classifiers.training.checkpoint import save_classifier
from generation.networks.timm_classifier import build_model
from release.classes.class_list import ClassEntry
from release.layout.image_sets import LabelledImages
from tests.sets.shapes import changed, write_release

SIZE = 8
MANY = 24
CLASSES = tuple(ClassEntry(i, f"n{i:04d}", f"hue {i}", f"hue {i}") for i in range(MANY))
RECIPE = changed(name="colours", channels=3, resolution=16, mean=(0.5,) * 3, std=(0.25,) * 3)


def colour_images(
    per_class: int, seed: int, classes: tuple[ClassEntry, ...] = CLASSES, noise: float = 20
) -> LabelledImages:
    """per_class of each, in turn; the hue is that of the class's label in CLASSES."""
    rng = np.random.default_rng(seed)
    labels = np.arange(per_class * len(classes)) % len(classes)
    hues = np.array([colorsys.hsv_to_rgb(int(c.wnid[1:]) / MANY, 0.8, 0.8) for c in classes])
    pixels = 255 * hues[labels][:, None, None] + rng.normal(0, noise, (len(labels), SIZE, SIZE, 3))
    return LabelledImages(
        images=pixels.clip(0, 255).astype(np.uint8),
        labels=labels,
        image_ids=tuple(f"{seed}-{i:05d}" for i in range(len(labels))),
        class_ids=tuple(c.wnid for c in classes),
        class_names=tuple(c.name for c in classes),
    )


def write_colours(
    folder: Path,
    splits: dict[str, LabelledImages],
    classes: tuple[ClassEntry, ...] = CLASSES,
    dataset: str = "colours",
    kind: str = "real",
) -> Path:
    """A release of them."""
    return write_release(folder, splits, kind, dataset, classes, configs=(str(SIZE),))


def relabelled(classes: tuple[ClassEntry, ...]) -> tuple[ClassEntry, ...]:
    """As a class list of their own has them."""
    return tuple(replace(entry, label=label) for label, entry in enumerate(classes))


def untrained(path: Path, seed: int = 0) -> Path:
    """Saved as a training saves it."""
    torch.manual_seed(seed)
    model = build_model(RECIPE, MANY).eval()
    save_classifier(path, model, RECIPE, tuple(entry.wnid for entry in CLASSES))
    return path
