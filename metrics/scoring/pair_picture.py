"""A picture of the images that lie nearest to training images, each beside its neighbour."""

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
SHOWN_PIXELS = 128  # images are shown at least so large


def draw_closest_pairs(
    path: Path, result: Result, images: ImageSet, train: ImageSet, cache: Path
) -> None:
    """The pairs that the result names, as a PNG at `path`: image, nearest, distance below."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    pairs: list[dict[str, Any]] = result.values["nearest_train"]["pairs"]
    left = _read(images, {pair["image"] for pair in pairs}, cache)
    right = _read(train, {pair["nearest"] for pair in pairs}, cache)
    rows = -(-len(pairs) // PAIRS_A_ROW)
    with mpl.rc_context({"font.size": 8}):
        figure = Figure(figsize=(2.6 * PAIRS_A_ROW, 1.6 * rows + 0.4), layout="constrained")
        axes = figure.subplots(rows, PAIRS_A_ROW, squeeze=False)
        for axis in axes.flat:
            axis.axis("off")
        for axis, pair in zip(axes.flat, pairs, strict=False):
            sides = np.concatenate([left[pair["image"]], right[pair["nearest"]]], axis=1)
            axis.imshow(sides)
            axis.set_title(f"{pair['distance']:.3g}")
        figure.suptitle(f"{images.label}: image and nearest of {train.label}, feature distance")
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
