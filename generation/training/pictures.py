"""What a training run shows while it goes on: its loss curve and sample grids."""

import csv
import io
from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure
from PIL import Image

WINDOW = 50  # steps averaged to a point: single losses are mostly noise
FEWEST_POINTS = 10  # a shorter training has narrower windows, so that it has a curve, too

Losses = Mapping[str, list[float]]  # by name, one a step


def loss_table(losses: Losses) -> bytes:
    """CSV of the mean losses of each WINDOW steps, or fewer in a short training."""
    file = io.StringIO(newline="")
    writer = csv.writer(file)
    means = _window_means(losses)
    writer.writerow(["step", *(f"mean_{name}_of_{_window(losses)}" for name in losses)])
    writer.writerows((step, *(f"{loss:.6f}" for loss in row)) for step, row in means)
    return file.getvalue().encode()


def loss_curve(losses: Losses) -> bytes:
    """As a PNG; one line a loss."""
    figure = Figure(figsize=(6, 3.5), layout="constrained")
    axes = figure.add_subplot()
    means, window = _window_means(losses), _window(losses)
    of_window = f", mean of {window} steps" if window > 1 else ""
    steps, rows = zip(*means, strict=True)
    marker = "o" if len(steps) <= FEWEST_POINTS else ""
    for name, values in zip(losses, zip(*rows, strict=True), strict=True):
        axes.plot(steps, values, lw=1.2, marker=marker, ms=3, label=name)
    if len(losses) == 1:
        axes.set(ylabel=f"{next(iter(losses))}{of_window}")
    else:
        axes.set(ylabel=f"losses{of_window}")
        axes.legend()
    positive = all(value > 0 for row in rows for value in row)
    axes.set(xlabel="optimiser step", yscale="log" if positive else "linear")
    axes.spines[["top", "right"]].set_visible(False)
    file = io.BytesIO()
    figure.savefig(file, dpi=120, format="png")
    return file.getvalue()


def picture(pixels: np.ndarray) -> bytes:
    """uint8[H,W,3] at twice its size, as a PNG."""
    grid = Image.fromarray(pixels)
    file = io.BytesIO()
    grid.resize((2 * grid.width, 2 * grid.height), Image.Resampling.NEAREST).save(file, "PNG")
    return file.getvalue()


def _window_means(losses: Losses) -> list[tuple[int, list[float]]]:
    window = _window(losses)
    ends = range(window, _steps(losses) + 1, window)
    return [(e, [float(np.mean(ls[e - window : e])) for ls in losses.values()]) for e in ends]


def _window(losses: Losses) -> int:
    return min(WINDOW, max(1, _steps(losses) // FEWEST_POINTS))


def _steps(losses: Losses) -> int:
    return len(next(iter(losses.values())))
