"""What a training run shows while it goes on: its loss curve and sample grids."""

import csv
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from PIL import Image

from generation.generators import ImageBatch
from generation.generators.pixel_unet import PixelUNetGenerator
from generation.pixel_unet import PixelUNet
from generation.sampler_config import SamplerConfig
from generation.training import TrainingSet

WINDOW = 50  # steps averaged to a point: single losses are mostly noise
PER_PROMPT = 8  # samples in each row of a grid
SAMPLER = SamplerConfig(method="dpm-solver++", steps=12)


def write_losses(losses: list[float], path: Path) -> None:
    """CSV of the mean loss of each WINDOW steps."""
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["step", f"mean_loss_of_{WINDOW}"])
        writer.writerows((step, f"{loss:.6f}") for step, loss in _window_means(losses))


def draw_losses(losses: list[float], path: Path) -> None:
    """The loss curve as a PNG."""
    figure = Figure(figsize=(6, 3.5), layout="constrained")
    axes = figure.add_subplot()
    points = _window_means(losses)
    axes.plot([step for step, _ in points], [loss for _, loss in points], lw=1.2)
    axes.set(xlabel="optimiser step", ylabel=f"loss, mean of {WINDOW} steps", yscale="log")
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=120)


def draw_samples(network: PixelUNet, data: TrainingSet, path: Path) -> None:
    """A grid of samples as a PNG: a row a prompt, on the parents of the first training images.

    An unconditional network has one row.
    """
    prompts = network.prompts.prompts[: max(1, data.null_prompt)]
    rows = [int(torch.argmax((data.prompts == i).int())) for i in range(len(prompts))]
    batch = ImageBatch(
        prompts=[prompt for prompt in prompts for _ in range(PER_PROMPT)],
        labels=[label for label in range(len(prompts)) for _ in range(PER_PROMPT)],
        seeds=list(range(len(prompts) * PER_PROMPT)),
        parents=None if data.parents is None else _parents(data.parents[rows]),
    )
    images = PixelUNetGenerator(network).sample(batch, SAMPLER)
    _, height, width, _ = images.shape
    grid = images.reshape(len(prompts), PER_PROMPT, height, width, 3).swapaxes(1, 2)
    pixels = grid.reshape(len(prompts) * height, PER_PROMPT * width, 3)
    Image.fromarray(pixels).resize((width * PER_PROMPT * 2, height * len(prompts) * 2), 0).save(
        path
    )


def _parents(images: torch.Tensor) -> np.ndarray:
    """uint8[P,C,h,w] => uint8[P * PER_PROMPT, h, w, 3]."""
    rgb = images.expand(-1, 3, -1, -1) if images.shape[1] == 1 else images
    return np.repeat(rgb.permute(0, 2, 3, 1).numpy(), PER_PROMPT, axis=0)


def _window_means(losses: list[float]) -> list[tuple[int, float]]:
    ends = range(WINDOW, len(losses) + 1, WINDOW)
    return [(end, float(np.mean(losses[end - WINDOW : end]))) for end in ends]
