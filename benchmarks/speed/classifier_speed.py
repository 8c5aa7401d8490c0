"""Speed of training a classifier, against timm's own loader and training step.

The same images, batch, precision and augmentation on both sides: random shifts by as far as the
recipe says and flips, then normalised. Loaders deliver batches alone; end to end they feed the
training step. The two sides take turns, many and short, so that whatever else the machine does
falls on both; ratios are medians over rounds of the ratio within a round, speeds medians. The
images are drawn at random, since speed does not depend on what they show.

With --original: a release whose images are read one by one from their Parquet files, such as
ResNet-50 at 224 px on a GPU; only the share of the bare step is measured then.

    python benchmarks/speed/classifier_speed.py
    python benchmarks/speed/classifier_speed.py --recipe imagenet-resnet50 --batch 256 \\
        --steps 100 --rounds 3 --original releases/imagenet-1k-real:original:train

Last line: JSON with loader_ratio (batches a second over timm's), step_share (end to end over the
bare step on resident data), ratio (end to end over timm's); with --original step_share and
loader_share (batches delivered alone over bare steps: below 1, training waits for decoding).
"""

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn
from torchvision import transforms

from classifiers.data.batches import Batches, open_batches
from classifiers.data.sources import index_source, open_source
from classifiers.recipes.recipe import ClassifierRecipe, load_recipe
from classifiers.training.bare_step import BareStep
from classifiers.training.loop import training_device
from classifiers.training.objective import autocast, seed_torch
from generation.networks.timm_classifier import build_model, to_channels
from generation.training.data.loaders import AHEAD
from generation.training.data.order import Visits
from generation.training.processes import launched_processes
from release.layout.image_sets import LabelledImages
from release.results.result import environment

CLASSES = 10
ENDLESS = range(1_000_000)  # steps, so that all goes on as in the midst of a training


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--recipe", default="fashion-mnist-small")
    parser.add_argument("--images", type=int, default=20_000)
    parser.add_argument("--batch", type=int)
    parser.add_argument("--steps", type=int, default=24, help="of each measurement")
    parser.add_argument("--rounds", type=int, default=41)
    parser.add_argument("--workers", type=int, help="that decode; one a core, one less --original")
    parser.add_argument("--original", help="RELEASE:CONFIG:SPLIT, read image by image")
    options = parser.parse_args()
    if options.workers is None:
        options.workers = max(1, (os.cpu_count() or 1) - bool(options.original))
    recipe = load_recipe(options.recipe, [f"batch={options.batch}"] if options.batch else [])
    if options.original:
        answer = measure_streamed(recipe, options)
    else:
        answer = measure_resident(recipe, options)
    facts = environment()
    answer |= {
        "recipe": recipe.name,
        "model": recipe.model,
        "resolution": recipe.resolution,
        "batch": recipe.batch,
        "steps": options.steps,
        "rounds": options.rounds,
        "workers": options.workers,
        "threads": torch.get_num_threads(),
        "device": facts["device"],
        "cpus": facts["cpus"],
        "versions": facts["versions"],
    }
    print(json.dumps(answer))


def measure_resident(recipe: ClassifierRecipe, options: argparse.Namespace) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    size = (options.images, recipe.resolution, recipe.resolution, 1)
    pixels = np.repeat(rng.integers(0, 256, size, np.uint8), 3, axis=3)
    names = tuple(str(c) for c in range(CLASSES))
    data = LabelledImages(
        pixels, rng.integers(0, CLASSES, len(pixels)), ("",) * len(pixels), names, names
    )
    device = training_device(launched_processes())
    ours = OurBatches(open_batches(recipe, data, Visits.once(len(data)), 0, device, ENDLESS))
    step = BareStep(recipe, CLASSES, device, recipe.batch)
    theirs = TimmSide(recipe, data, device, options.workers)
    images, labels = ours.next()
    sides: dict[str, Callable[[int], None]] = {
        "loader": lambda n: repeat(n, ours.next),
        "timm_loader": lambda n: repeat(n, theirs.next),
        "bare_step": lambda n: repeat(n, lambda: step(images, labels)),
        "end_to_end": lambda n: repeat(n, lambda: step(*ours.next())),
        "timm_end_to_end": lambda n: repeat(n, lambda: theirs.step(*theirs.next())),
    }
    ready = 2 * options.workers + 1  # what torch's loader has ready, and timm's on top of it
    rates = measure(sides, options.steps, options.rounds, recipe.batch, untimed=ready)
    return {
        "loader_ratio": round(ratio(rates, "loader", "timm_loader"), 2),
        "step_share": round(ratio(rates, "end_to_end", "bare_step"), 3),
        "ratio": round(ratio(rates, "end_to_end", "timm_end_to_end"), 3),
        "images_per_second": medians(rates),
        "images": options.images,
    }


def measure_streamed(recipe: ClassifierRecipe, options: argparse.Namespace) -> dict[str, Any]:
    data = index_source(open_source(options.original, recipe.resolution), lambda _: None)
    classes = len(data.class_ids)
    device = training_device(launched_processes())
    visits = Visits.once(len(data))
    ours = OurBatches(
        open_batches(recipe, data, visits, 0, device, ENDLESS, loaders=options.workers)
    )
    step = BareStep(recipe, classes, device, recipe.batch)
    images, labels = ours.next()
    sides: dict[str, Callable[[int], None]] = {  # the loader before end to end, to leave none ready
        "bare_step": lambda n: repeat(n, lambda: step(images, labels)),
        "loader": lambda n: repeat(n, ours.next),
        "end_to_end": lambda n: repeat(n, lambda: step(*ours.next())),
    }
    ready = AHEAD * options.workers + 1
    rates = measure(sides, options.steps, options.rounds, recipe.batch, untimed=ready)
    return {
        "step_share": round(ratio(rates, "end_to_end", "bare_step"), 3),
        "loader_share": round(ratio(rates, "loader", "bare_step"), 3),
        "images_per_second": medians(rates),
        "images": len(data),
    }


def measure(
    sides: dict[str, Callable[[int], None]], steps: int, rounds: int, batch: int, untimed: int
) -> dict[str, list[float]]:
    """Images a second of each round, in which all sides take turns; the first round is spent.

    untimed: steps of each side before those that count, so that no batch counts as delivered that
    was decoded while another side had its turn.
    """
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for number in range(rounds + 1):
        for name, side in sides.items():
            side(untimed)
            synchronise()
            started = time.perf_counter()
            side(steps)
            synchronise()
            seconds[name].append(time.perf_counter() - started)
        rates = {name: round(steps * batch / own[-1]) for name, own in seconds.items()}
        print(f"round {number} of {rounds}, images a second: {rates}", file=sys.stderr, flush=True)
    return {name: [steps * batch / s for s in own[1:]] for name, own in seconds.items()}


def ratio(rates: dict[str, list[float]], one: str, other: str) -> float:
    """Median over rounds: a machine that grows slower on the way changes both."""
    return statistics.median(a / b for a, b in zip(rates[one], rates[other], strict=True))


def medians(rates: dict[str, list[float]]) -> dict[str, int]:
    return {name: round(statistics.median(own)) for name, own in rates.items()}


def synchronise() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def repeat(times: int, action: Callable[[], object]) -> None:
    for _ in range(times):
        action()


class OurBatches:
    """As training asks for them, one step after the other."""

    def __init__(self, batches: Batches) -> None:
        self._batches, self._steps = batches, iter(ENDLESS)

    def next(self) -> tuple[torch.Tensor, torch.Tensor]:
        step = next(self._steps)
        seed_torch(0, 1 + step)
        return self._batches.batch(step)


class PillowImages(torch.utils.data.Dataset[tuple[Any, int]]):
    """What timm's loader reads: Pillow images in memory, already decoded, and their labels."""

    def __init__(self, recipe: ClassifierRecipe, data: LabelledImages) -> None:
        pixels = to_channels(data.images, recipe.channels).transpose(0, 2, 3, 1)
        self._images = [Image.fromarray(p.squeeze(-1) if p.shape[-1] == 1 else p) for p in pixels]
        self._labels = data.labels
        self.transform: Callable[[Image.Image], Any] | None = None

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, i: int) -> tuple[Any, int]:
        assert self.transform is not None
        return self.transform(self._images[i]), int(self._labels[i])


class TimmSide:
    """timm's create_loader, and the training step of timm's train.py, on the same recipe."""

    def __init__(
        self, recipe: ClassifierRecipe, data: LabelledImages, device: torch.device, workers: int
    ) -> None:
        from timm.data import create_loader  # type: ignore[attr-defined]
        from timm.data.transforms import ToNumpy
        from timm.loss import LabelSmoothingCrossEntropy  # type: ignore[attr-defined]
        from timm.optim import create_optimizer_v2  # type: ignore[attr-defined]

        side = recipe.resolution
        self._recipe = recipe
        self._loader = create_loader(
            PillowImages(recipe, data),  # type: ignore[arg-type]
            input_size=(recipe.channels, side, side),
            batch_size=recipe.batch,
            is_training=True,
            mean=recipe.mean,
            std=recipe.std,
            num_workers=workers,
            device=device,
            persistent_workers=True,
        )
        settings = recipe.augmentation
        self._loader.dataset.transform = transforms.Compose(
            [
                transforms.RandomCrop(
                    side,
                    padding=settings.shift,
                    padding_mode="constant" if settings.border == "black" else "reflect",
                ),
                transforms.RandomHorizontalFlip(0.5 if settings.flip else 0.0),
                ToNumpy(),
            ]
        )
        self._batches: Iterator[Any] = iter(self._loader)
        self._model = build_model(recipe, CLASSES).to(device)
        self._model.to(memory_format=torch.channels_last).train()
        self._optimizer = create_optimizer_v2(
            self._model,
            opt=recipe.optimizer,
            lr=recipe.learning_rate,
            weight_decay=recipe.weight_decay,
            momentum=recipe.momentum,
        )
        self._loss: nn.Module = LabelSmoothingCrossEntropy(recipe.label_smoothing)

    def next(self) -> tuple[torch.Tensor, torch.Tensor]:
        try:
            images, labels = next(self._batches)
        except StopIteration:
            self._batches = iter(self._loader)
            images, labels = next(self._batches)
        return images.contiguous(memory_format=torch.channels_last), labels

    def step(self, images: torch.Tensor, labels: torch.Tensor) -> None:
        with autocast(self._recipe, images.device):
            loss = self._loss(self._model(images), labels)
        self._optimizer.zero_grad()
        loss.backward()
        self._optimizer.step()


if __name__ == "__main__":
    main()
