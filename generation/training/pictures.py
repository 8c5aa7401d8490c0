"""What a training run shows while it goes on: its loss curve and sample grids."""

import csv
import io

import numpy as np
import torch
from matplotlib.figure import Figure
from PIL import Image

from generation.diffusion.sampler_config import SamplerConfig
from generation.families.pixel_unet.generator import PixelUNetGenerator
from generation.families.pixel_unet.network import PixelUNet
from generation.generator import ImageBatch, Screened
from generation.training.loop import TrainingSet

WINDOW = 50  # steps averaged to a point: single losses are mostly noise
FEWEST_POINTS = 10  # a shorter training has narrower windows, so that it has a curve, too
PER_PROMPT = 8  # samples in each row of a grid
MOST_PROMPTS = 16  # rows of a grid: an ImageNet of them would fill no screen and all memory
SAMPLER = SamplerConfig(method="dpm-solver++", steps=12)


def loss_table(losses: list[float]) -> bytes:
    """CSV of the mean loss of each WINDOW steps, or fewer in a short training."""
    file = io.StringIO(newline="")
    writer = csv.writer(file)
    writer.writerow(["step", f"mean_loss_of_{_window(losses)}"])
    writer.writerows((step, f"{loss:.6f}") for step, loss in _window_means(losses))
    return file.getvalue().encode()


def loss_curve(losses: list[float]) -> bytes:
    """As a PNG."""
    figure = Figure(figsize=(6, 3.5), layout="constrained")
    axes = figure.add_subplot()
    points, window = _window_means(losses), _window(losses)
    label = f"loss, mean of {window} steps" if window > 1 else "loss"
    x, y = zip(*points, strict=True)
    axes.plot(x, y, lw=1.2, marker="o" if len(points) <= FEWEST_POINTS else "", ms=3)
    axes.set(xlabel="optimiser step", ylabel=label, yscale="log")
    axes.spines[["top", "right"]].set_visible(False)
    file = io.BytesIO()
    figure.savefig(file, dpi=120, format="png")
    return file.getvalue()


def sample_grid(network: PixelUNet, data: TrainingSet) -> bytes:
    """A grid of samples as a PNG: a row a prompt, on the parent of its first training image.

    Of the first MOST_PROMPTS; an unconditional network has one row.
    """
    count = min(max(1, data.null_prompt), MOST_PROMPTS)
    generator = PixelUNetGenerator(network)
    made = [generator.sample(_row(network, data, i), SAMPLER) for i in range(count)]
    rows = [np.hstack(list(m.images if isinstance(m, Screened) else m)) for m in made]
    grid = Image.fromarray(np.vstack(rows))
    file = io.BytesIO()
    grid.resize((2 * grid.width, 2 * grid.height), Image.Resampling.NEAREST).save(file, "PNG")
    return file.getvalue()


def _row(network: PixelUNet, data: TrainingSet, prompt: int) -> ImageBatch:
    """PER_PROMPT images of one prompt."""
    parents = None
    if data.parents is not None:
        first = data.parents[int(torch.argmax((data.prompts == prompt).int()))]
        rgb = first.expand(3, -1, -1).permute(1, 2, 0).numpy()
        parents = np.repeat(rgb[None], PER_PROMPT, axis=0)
    return ImageBatch(
        prompts=[network.prompts.prompts[prompt]] * PER_PROMPT,
        labels=[prompt] * PER_PROMPT,
        seeds=list(range(prompt * PER_PROMPT, (prompt + 1) * PER_PROMPT)),
        parents=parents,
        resolution=network.config.resolution,
    )


def _window_means(losses: list[float]) -> list[tuple[int, float]]:
    window = _window(losses)
    ends = range(window, len(losses) + 1, window)
    return [(end, float(np.mean(losses[end - window : end]))) for end in ends]


def _window(losses: list[float]) -> int:
    return min(WINDOW, max(1, len(losses) // FEWEST_POINTS))
