"""What a training holds of millions of images: little for each, and nothing twice."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from generation.training.data.order import Visits, epoch_order
from release.layout.image_index import file_column, write_index

LOADER = """
import sys
from pathlib import Path
from release.streaming.encoded import EncodedImages
from release.layout.image_index import open_index

path = Path(sys.argv[1])
images = EncodedImages(open_index(path), path.parent, (), (), path)
assert (images.labels.tolist(), images.file.tolist()) == ([1, 0], [0, 0])
assert (images.offset.tolist(), images.size.tolist()) == ([4, 9], [5, 6])
sys.exit("pandas" in sys.modules)
"""


def test_loaders_read_the_index_without_pandas(tmp_path: Path):
    """Which takes 40 MB, in each of them."""
    columns = {
        "image_id": pa.array(["a", "b"], pa.large_string()),
        "label": pa.array([1, 0]),
        "file": file_column(np.zeros(2, np.int32), ["16/train-0.parquet"]),
        "offset": pa.array([4, 9]),
        "size": pa.array([5, 6], pa.int32()),
        "sha256": pa.nulls(2, pa.binary(32)),
    }
    with pa.OSFile(str(tmp_path / "index.feather"), "wb") as sink:
        write_index(sink, pa.table(columns))
    command = [sys.executable, "-c", LOADER, str(tmp_path / "index.feather")]
    subprocess.run(command, check=True)


@pytest.mark.parametrize(
    "visits", [Visits.once(1001), Visits((70, 300), (3.0, 0.4)), Visits((50,), (2.0,))]
)
def test_an_order_of_rows_in_half_the_memory_is_the_order_that_it_was(visits: Visits):
    rng, rows, start = np.random.default_rng([5, 2]), [], 0
    for images, weight in zip(visits.images, visits.weights, strict=True):
        own = np.arange(start, start + images)
        whole, rest = divmod(round(weight * images), images)
        rows += [own] * whole
        rows += [rng.choice(own, rest, replace=False)] if rest else []
        start += images
    expected = np.concatenate(rows)
    rng.shuffle(expected)
    found = epoch_order(visits, 5, 2)
    assert found.dtype == np.int32
    assert np.array_equal(found, expected)
