"""Pictures of images that a result names: the nearest to training images, the easiest to tell."""

from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

from metrics.features.image_lists import ImageSet, read_image_list
from release.files.commit import write_atomically
from release.layout.image_sets import decode
from release.layout.shard_files import read_shard, readable, require_unchanged
from release.results.result import Result

PAIRS_A_ROW = 4
EASIEST_A_ROW = 8
SHOWN_PIXELS = 128  # images are shown at least so large


def draw_closest_pairs(
    path: Path, result: Result, images: ImageSet, train: ImageSet, cache: Path
) -> None:
    """The pairs that the result names, as a PNG at `path`: image, nearest, distance below."""
    pairs: list[dict[str, Any]] = result.values["nearest_train"]["pairs"]
    left = _read(images, {pair["image"] for pair in pairs}, cache)
    right = _read(train, {pair["nearest"] for pair in pairs}, cache)
    shown = [
        (
            np.concatenate([left[pair["image"]], right[pair["nearest"]]], axis=1),
            f"{pair['distance']:.3g}",
        )
        for pair in pairs
    ]
    title = f"{images.label}: image and nearest of {train.label}, feature distance"
    _draw(path, shown, PAIRS_A_ROW, 2.6, title)


def draw_easiest(path: Path, result: Result, value: str, images: ImageSet, cache: Path) -> None:
    """The images that `value` of the result is surest are generated, log-odds above, at `path`."""
    entries: list[dict[str, Any]] = result.values[value]["easiest"]
    pixels = _read(images, {entry["image"] for entry in entries}, cache)
    shown = [(pixels[entry["image"]], f"{entry['log_odds']:.3g}") for entry in entries]
    title = f"{images.label}: the easiest to tell from real, log-odds ({score_of(result, value)})"
    _draw(path, shown, EASIEST_A_ROW, 1.3, title)


def score_of(result: Result, value: str) -> str:
    """ "real or generated, against test: 0.93"."""
    split = value.rpartition("_")[2]
    return f"real or generated, against {split}: {result.values[value]['value']:.3f}"


def _draw(
    path: Path, shown: list[tuple[np.ndarray, str]], a_row: int, inches: float, title: str
) -> None:
    """A PNG of pictures uint8[H,W,3], each with its heading; `inches` wide."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    rows = -(-len(shown) // a_row)
    with mpl.rc_context({"font.size": 8}):
        figure = Figure(figsize=(inches * a_row, 1.6 * rows + 0.4), layout="constrained")
        axes = figure.subplots(rows, a_row, squeeze=False)
        for axis in axes.flat:
            axis.axis("off")
        for axis, (picture, heading) in zip(axes.flat, shown, strict=False):
            axis.imshow(picture)
            axis.set_title(heading)
        figure.suptitle(title)
        content = BytesIO()
        figure.savefig(content, format="png", dpi=SHOWN_PIXELS)
    write_atomically(path, content.getvalue())


def _read(image_set: ImageSet, wanted: set[str], cache: Path) -> dict[str, np.ndarray]:
    """uint8[H,W,3] by image id."""
    found: dict[str, np.ndarray] = {}
    for shard in image_set.shards():
        images = read_image_list(image_set, shard, cache)
        rows = [i for i, name in enumerate(images.image_ids) if name in wanted]
        if not rows:
            continue
        path = image_set.release / shard.path
        require_unchanged(path, shard.sha256)
        with readable(path):
            column = read_shard(path, ["image"])["image"]
        for i in rows:
            data = column[int(images.rows[i])].as_py()["bytes"]
            found[images.image_ids[i]] = decode(data)
    return found
