"""The picture of several generators: a row each, the same classes in the same order."""

from collections.abc import Sequence
from itertools import chain, zip_longest
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from cards.drawing.picture_names import label_font, shown_text
from cards.drawing.sample_grid import draw_rows, png_bytes, read_samples
from release.commands.command import run_command
from release.errors import UserError
from release.files.commit import write_atomically
from release.files.storage import ReleasePath, release_path

MOST = 40  # images of a row


def one_of_each(
    release: ReleasePath, count: int, config: str | None = None
) -> tuple[str, str, list[np.ndarray]]:
    """Name and data set of the release, and its first image of each class, then each's second.

    At most `count`, uint8[H,W,3] each; of more classes than that, those at equal steps.
    """
    samples = read_samples(release, config, per_class=count, max_classes=count)
    in_turn = chain.from_iterable(zip_longest(*samples.images))
    images = [image for image in in_turn if image is not None]
    return samples.release, samples.dataset, images[:count]


def draw_side_by_side(
    releases: Annotated[list[str], typer.Argument(help="folders or URLs of releases")],
    out: Annotated[Path, typer.Option(help="PNG file to write")],
    count: Annotated[int, typer.Option(help="images of each release")] = 20,
    config: Annotated[str | None, typer.Option(help="configuration; default: largest")] = None,
) -> None:
    """Draw a row of images of each release: the first of each class, then the second, not chosen.

    python -m cards.drawing.side_by_side releases/rin-32 releases/dit-32 --out systems.png
    """
    if not 1 <= count <= MOST:
        raise UserError(f"--count {count}: a row holds 1 to {MOST} images")
    rows = [one_of_each(release_path(release), count, config) for release in releases]
    require_one_dataset(releases, [dataset for _, dataset, _ in rows])
    font = label_font()
    names = [shown_text(name, font) for name, _, _ in rows]
    write_atomically(out, png_bytes(draw_rows(names, [images for _, _, images in rows])))
    typer.echo(f"{out}: the first images of each class in turn, not chosen by eye", err=True)


def require_one_dataset(releases: Sequence[str], datasets: Sequence[str]) -> None:
    """UserError where rows would not show the same classes."""
    for release, dataset in zip(releases, datasets, strict=True):
        if dataset != datasets[0]:
            raise UserError(
                f"{release} is of {dataset}, {releases[0]} of {datasets[0]}: rows side by side are "
                "of one data set"
            )


if __name__ == "__main__":
    run_command(draw_side_by_side)
