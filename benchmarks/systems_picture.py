"""The board's picture: real images and a row of each system's.

Each row is kept beside the system's results, so that a machine without the releases draws it too.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image

from cards.drawing.sample_grid import draw_rows, png_bytes
from cards.drawing.side_by_side import one_of_each
from release.files.commit import write_atomically

IMAGES = "images.png"
COUNT, CONFIG = 20, "32"


def keep_images(release: Path, folder: Path) -> None:
    """The release's first image of each class, then each's second, side by side."""
    _, _, images = one_of_each(release, COUNT, CONFIG)
    Image.fromarray(np.hstack(images)).save(folder / IMAGES)


def draw_systems(out: Path, titles: Mapping[str, str]) -> None:
    """systems.png: a row of each of the folders in `out` that has images, with its title."""
    there = [name for name in titles if (out / name / IMAGES).is_file()]
    strips = [np.asarray(Image.open(out / name / IMAGES).convert("RGB")) for name in there]
    rows = [np.split(strip, COUNT, axis=1) for strip in strips]
    picture = draw_rows([titles[name] for name in there], rows)
    write_atomically(out / "systems.png", png_bytes(picture))
