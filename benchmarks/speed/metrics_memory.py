"""Peak memory of score-release at 50,000 images over that at 5,000.

FD, IS, KID, CMMD, precision and recall in one run against as many real images, each size in a
process of its own, images and features on disk, nothing in the cache at the start. What is measured
is the largest resident set of the command, which extracts in its own process (--workers 1). The
last line is one JSON object: ratio.

    python benchmarks/speed/metrics_memory.py
"""

import argparse
import io
import json
import platform
import resource
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from release.classes.class_list import ClassEntry
from release.files.commit import sha256_file
from release.layout.manifest import Manifest, ShardRecord

SHARD = 2500  # rows of a file, the same for every size
METRICS = "fd,is,kid,cmmd,prdc"
CLASSES = tuple(ClassEntry(i, f"c{i}", f"class {i}", f"class {i}") for i in range(10))


def main() -> None:
    arguments = parse_arguments()
    if arguments.score:
        score(arguments.score, arguments.extractor)
        return
    sizes = (arguments.small, arguments.large)
    with tempfile.TemporaryDirectory() as folder:
        where = Path(folder)
        peaks, seconds = {}, {}
        for n in sizes:
            write_release(where / f"{n}" / "real", "real", n, seed=1)
            write_release(where / f"{n}" / "made", "synthetic", n, seed=2)
            started = time.perf_counter()
            command = [sys.executable, __file__, "--score", str(where / f"{n}" / "made")]
            command += ["--extractor", arguments.extractor]
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
            peaks[n] = json.loads(done.stdout.splitlines()[-1])["peak_mib"]
            seconds[n] = round(time.perf_counter() - started, 1)
            print(f"{n:7,} images: peak {peaks[n]:,.0f} MiB, {seconds[n]:,.0f} s", flush=True)
    report = {
        "ratio": peaks[arguments.large] / peaks[arguments.small],
        "peak_mib": peaks,
        "seconds": seconds,
        "metrics": METRICS,
        "extractor": arguments.extractor,
        "machine": platform.machine(),
        "versions": {name: version(name) for name in ("torch", "numpy", "pyarrow")},
    }
    print(json.dumps(report))


def score(release: Path, extractor: str) -> None:
    """score-release with a cache of its own, so that all images are extracted in this process."""
    from metrics.score_release import score_release

    score_release(
        [f"{release}:32"],
        real=str(release.parent / "real"),
        out=release / "results",
        extractor=[extractor],
        metrics=METRICS,
        cache=release / "cache",
        device="cpu",
        workers=1,
    )
    print(json.dumps({"peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}))


def write_release(release: Path, kind: str, n: int, seed: int) -> None:
    """n smooth random images of 32 px as PNG, in files of SHARD rows."""
    rng = np.random.default_rng([seed, n])
    (release / "32").mkdir(parents=True)
    header = {"classes": json.dumps([vars(entry) for entry in CLASSES])}
    split = "test" if kind == "real" else "train"
    shards = []
    for number, start in enumerate(range(0, n, SHARD)):
        rows = [image_row(rng, i) for i in range(start, min(start + SHARD, n))]
        path = release / f"32/{split}-{number:05d}.parquet"
        pq.write_table(pa.Table.from_pylist(rows).replace_schema_metadata(header), path)
        labels = [row["label"] for row in rows]
        shards.append(
            ShardRecord(
                path=f"32/{path.name}",
                rows=len(rows),
                bytes=path.stat().st_size,
                sha256=sha256_file(path),
                fingerprint="",
                per_class={entry.wnid: labels.count(entry.label) for entry in CLASSES},
            )
        )
    Manifest(
        name=release.name,
        kind="real" if kind == "real" else "synthetic",
        dataset="memory",
        regime=None if kind == "real" else "A",
        license="cc0-1.0",
        classes=CLASSES,
        origin={},
        shards=tuple(shards),
    ).write(release)


def image_row(rng: np.random.Generator, i: int) -> dict[str, object]:
    coarse = Image.fromarray(rng.integers(0, 256, (4, 4, 3), dtype=np.uint8))
    data = io.BytesIO()
    coarse.resize((32, 32), Image.Resampling.BICUBIC).save(data, "png", compress_level=1)
    image = {"bytes": data.getvalue(), "path": None}
    return {"image": image, "label": i % len(CLASSES), "image_id": f"{i:06d}"}


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--small", type=int, default=5000)
    parser.add_argument("--large", type=int, default=50000)
    parser.add_argument("--extractor", default="efficientnet-lite0-32")
    parser.add_argument("--score", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    main()
