"""Rows a second of the release writer over `datasets`' own, and of reading what they wrote.

    python benchmarks/speed/parquet_writer.py
    python benchmarks/speed/parquet_writer.py --images 200 --pairs 3

Both write the same encoded 256 x 256 images with the same columns. Ours: Parquet bytes, hash,
fsync, rename, sidecar and marker, as a worker commits a shard. Theirs: Dataset.from_dict and
to_parquet. Pairs are interleaved, and which goes first alternates; `ratio` is the median over
pairs. Reading: load_dataset of each file into a fresh cache, interleaved likewise.
"""

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from PIL import Image, ImageFilter

from builder.shards.shard import COLUMNS
from release.classes.class_list import ClassEntry
from release.commands.progress import progress_bar
from release.images.encoding import encode_image
from release.layout.parquet import image_features, table_schema, write_table
from release.layout.shard_commit import commit_shard
from release.results.result import environment

SIDE = 256
CLASSES = [ClassEntry(i, f"n{i:08d}", f"Class {i}", f"a photo of class {i}") for i in range(1000)]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--pairs", type=int, default=9)
    parser.add_argument("--folder", type=Path, help="where to write; by default a temporary one")
    arguments = parser.parse_args()
    os.environ["HF_HUB_OFFLINE"] = "1"
    columns = make_columns(arguments.images)
    with tempfile.TemporaryDirectory(dir=arguments.folder) as name:
        folder = Path(name)
        writers = {
            "ours": lambda i: write_ours(folder / f"ours-{i}", columns),
            "theirs": lambda i: write_theirs(folder / f"theirs-{i}", columns),
        }
        written = interleaved(writers, arguments.pairs, "writing")
        files = {kind: next((folder / f"{kind}-0").rglob("*.parquet")) for kind in writers}
        readers = {
            kind: lambda i, kind=kind: read(files[kind], folder / f"cache-{kind}-{i}")
            for kind in files
        }
        read_seconds = interleaved(readers, arguments.pairs, "reading")
        sizes = {kind: file.stat().st_size for kind, file in files.items()}
    rows = {kind: arguments.images / statistics.median(s) for kind, s in written.items()}
    result = {
        "ratio": median_ratio(written),
        "read_ratio": median_ratio(read_seconds),
        "images": arguments.images,
        "pairs": arguments.pairs,
        "image_bytes": statistics.mean(map(len, columns["image"])),
        "rows_a_second": rows,
        "ratio_of_each_pair": [
            theirs / ours for ours, theirs in zip(written["ours"], written["theirs"], strict=True)
        ],
        "read_seconds": {kind: statistics.median(s) for kind, s in read_seconds.items()},
        "file_bytes": sizes,
        "environment": environment(),
    }
    print(json.dumps(result))


def make_columns(count: int) -> dict[str, list]:
    """Rows of a release; the images are smoothed noise, which compresses as photographs do."""
    chance = np.random.default_rng(0)
    images = []
    with progress_bar(count, "encoding", "images", quiet=False) as advance:
        for _ in range(count):
            coarse = Image.fromarray(chance.integers(256, size=(16, 16, 3), dtype=np.uint8))
            smooth = np.asarray(coarse.resize((SIDE, SIDE), Image.Resampling.BICUBIC), np.int16)
            grain = Image.fromarray(chance.integers(256, size=(SIDE, SIDE, 3), dtype=np.uint8))
            fine = np.asarray(grain.filter(ImageFilter.GaussianBlur(1.0)), np.int16) - 128
            pixels = np.clip(smooth + fine // 2, 0, 255).astype(np.uint8)
            images.append(encode_image(pixels, "webp-lossless", synthetic=True))
            advance(1)
    entries = [CLASSES[i % len(CLASSES)] for i in range(count)]
    names = [f"s0-r{SIDE}-{entry.wnid}-{i:06d}-0" for i, entry in enumerate(entries)]
    return {
        "image": images,
        "label": [entry.label for entry in entries],
        "class_id": [entry.wnid for entry in entries],
        "prompt": [entry.prompt for entry in entries],
        "image_id": names,
        "parent_image_id": [name.replace(f"-r{SIDE}-", "-r64-") for name in names],
        "seed": [int(seed) for seed in chance.integers(1 << 62, size=count)],
        "index": list(range(count)),
        "attempt": [0] * count,
        "generator": ["stand-in"] * count,
        "checkpoint_sha256": ["0" * 64] * count,
        "sampler": ['{"method":"ddpm","steps":250}'] * count,
    }


def write_ours(release: Path, columns: dict[str, list]) -> None:
    """What a worker does with a shard's rows."""
    schema = table_schema(image_features(CLASSES, COLUMNS), CLASSES)
    commit_shard(
        release,
        f"{SIDE}/train-0.parquet",
        "0" * 64,
        lambda sink: write_table(sink, schema, columns),
        columns["class_id"],
        time.time(),
    )


def write_theirs(folder: Path, columns: dict[str, list]) -> None:
    from datasets import ClassLabel, Dataset, Features, Value
    from datasets import Image as ImageFeature

    features = Features(
        image=ImageFeature(),
        label=ClassLabel(names=[entry.name for entry in CLASSES]),
        **{name: Value(dtype) for name, dtype in COLUMNS.items()},
    )
    images = [{"bytes": data, "path": None} for data in columns["image"]]
    folder.mkdir()
    dataset = Dataset.from_dict({**columns, "image": images}, features=features)
    dataset.to_parquet(folder / "train-0.parquet")


def read(file: Path, cache: Path) -> None:
    """load_dataset of the file, and every encoded image of what it gives."""
    from datasets import Image as ImageFeature
    from datasets import load_dataset

    loaded = load_dataset(
        "parquet", data_files=str(file), split="train", cache_dir=str(cache)
    ).cast_column("image", ImageFeature(decode=False))
    for batch in loaded.iter(100):
        assert all(image["bytes"] for image in batch["image"])


def interleaved(
    kinds: Mapping[str, Callable[[int], None]], pairs: int, name: str
) -> dict[str, list[float]]:
    """Seconds of each kind, `pairs` times in turn; one of each before, uncounted."""
    seconds: dict[str, list[float]] = {kind: [] for kind in kinds}
    with progress_bar(pairs + 1, name, "pairs", quiet=False) as advance:
        for pair in range(-1, pairs):
            order = list(kinds) if pair % 2 else list(kinds)[::-1]
            for kind in order:
                os.sync()  # what the one left to be written is not the other's to wait for
                started = time.perf_counter()
                kinds[kind](pair)
                if pair >= 0:
                    seconds[kind].append(time.perf_counter() - started)
            advance(1)
    return seconds


def median_ratio(seconds: dict[str, list[float]]) -> float:
    """How many times as fast ours is."""
    pairs = zip(seconds["ours"], seconds["theirs"], strict=True)
    return statistics.median(theirs / ours for ours, theirs in pairs)


if __name__ == "__main__":
    main()
