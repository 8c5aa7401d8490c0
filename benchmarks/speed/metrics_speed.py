"""Inception features and the trace term: ours beside torch-fidelity's and scipy's.

Features: n images as PNG files for torch-fidelity, the same bytes as a release for us; decode and
resize included, float32, the same random Inception weights, both on the same threads. Rounds are
interleaved, medians compared; the features must agree within 1e-4 of their scale. Trace: that of
(S1·S2)^½ in 2048 dimensions, scipy's sqrtm against ours, our root of S1 included. The last line is
one JSON object: ratio (features), trace_ratio; cpu_ratio is that of processor time, user and
system, which other processes on the machine disturb less.

    python benchmarks/speed/metrics_speed.py --n 2000 --rounds 3
"""

import argparse
import io
import json
import os
import platform
import resource
import statistics
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from PIL import Image
from scipy import linalg
from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
from torch_fidelity.utils import extract_featuresdict_from_input_id
from torchvision.models.inception import Inception3

from metrics.features.extractors import Extractor, FeatureProtocol
from metrics.features.image_lists import open_image_set
from metrics.features.inception import INPUT_SIZE, InceptionV3
from metrics.features.release_features import iterate_features
from metrics.states.frechet import GaussianReference, Moments
from release.classes.class_list import ClassEntry
from release.files.commit import sha256_file
from release.layout.manifest import Manifest, ShardRecord

SHARD = 500
DIMENSIONS = 2048


def main() -> None:
    arguments = parse_arguments()
    torch.set_num_threads(arguments.threads)
    report: dict[str, Any] = {}
    if not arguments.only_trace:
        report |= features_report(arguments)
    if not arguments.only_features:
        report |= trace_report(arguments.trace_rounds)
    report |= {
        "threads": arguments.threads,
        "cpus": os.cpu_count(),
        "machine": platform.machine(),
        "versions": {name: version(name) for name in ("torch", "torch-fidelity", "scipy", "numpy")},
    }
    print(json.dumps(report))


def features_report(arguments: argparse.Namespace) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        where = Path(folder)
        weights = where / "weights.pth"
        torch.save(random_weights(), weights)
        write_images(where, arguments.n, arguments.size)
        loops = {
            "torch-fidelity": lambda: their_features(where / "images", weights, arguments.batch),
            "ours": lambda: our_features(where, weights, arguments.batch),
        }
        seconds: dict[str, list[float]] = {name: [] for name in loops}
        cpu_seconds: dict[str, list[float]] = {name: [] for name in loops}
        found: dict[str, np.ndarray] = {}
        for round_ in range(arguments.rounds):
            for name, loop in loops.items():
                started, cpu_started = time.perf_counter(), cpu_time()
                found[name] = loop()
                seconds[name].append(time.perf_counter() - started)
                cpu_seconds[name].append(cpu_time() - cpu_started)
                rate = arguments.n / seconds[name][-1]
                cost = 1000 * cpu_seconds[name][-1] / arguments.n
                print(
                    f"round {round_ + 1}: {name:15s} {rate:7.2f} images/s, "
                    f"{cost:6.1f} ms of processor time an image",
                    flush=True,
                )
    theirs, ours = found["torch-fidelity"], found["ours"]
    difference = float(np.abs(theirs - ours).max() / np.abs(theirs).max())
    if difference > 1e-4:
        raise SystemExit(f"features differ by {difference:.1e} of their scale")
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    cpu = {name: statistics.median(values) for name, values in cpu_seconds.items()}
    return {
        "ratio": medians["torch-fidelity"] / medians["ours"],
        "cpu_ratio": cpu["torch-fidelity"] / cpu["ours"],
        "cpu_ms_per_image": {name: 1000 * median / arguments.n for name, median in cpu.items()},
        "images_per_s": {name: arguments.n / median for name, median in medians.items()},
        "difference": difference,
        "n": arguments.n,
        "size": arguments.size,
        "rounds": arguments.rounds,
        "batch": arguments.batch,
    }


def cpu_time() -> float:
    """Seconds of user and system time of this process and those it has waited for."""
    own, children = (
        resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    )
    return own.ru_utime + own.ru_stime + children.ru_utime + children.ru_stime


def their_features(images: Path, weights: Path, batch: int) -> np.ndarray:
    """As its command does, loading the network included, its cache off."""
    extractor = FeatureExtractorInceptionV3(
        "inception-v3-compat", ["2048", "logits_unbiased"], str(weights)
    )
    options = {"input1": str(images), "batch_size": batch, "cuda": False, "verbose": False}
    found = extract_featuresdict_from_input_id(1, extractor.eval(), **options)
    return np.asarray(found["2048"].numpy())


def our_features(where: Path, weights: Path, batch: int) -> np.ndarray:
    """As score-release does within one process, from an empty cache to a full one."""
    network = InceptionV3(torch.load(weights, weights_only=True))
    network = network.to(memory_format=torch.channels_last).eval().requires_grad_(False)
    protocol = FeatureProtocol("inception-v3", "", INPUT_SIZE, "adm", (128.0,) * 3, (128.0,) * 3)
    extractor = Extractor(protocol, network, torch.device("cpu"), batch)
    image_set = open_image_set(where / "release", "images", "train")
    with tempfile.TemporaryDirectory(dir=where) as cache:
        blocks = iterate_features(image_set, extractor, Path(cache))
        return np.concatenate([block.features for block in blocks])


def random_weights() -> dict[str, torch.Tensor]:
    """The published file's layout; activations of a natural scale, so that nothing saturates."""
    generator = torch.Generator().manual_seed(0)
    state: dict[str, torch.Tensor] = Inception3(
        num_classes=1008, aux_logits=False, init_weights=False
    ).state_dict()
    for name, tensor in state.items():
        if name.endswith("conv.weight"):
            scale = (2 / tensor[0].numel()) ** 0.5
            state[name] = torch.randn(tensor.shape, generator=generator) * scale
        elif tensor.is_floating_point():
            state[name] = 0.5 + torch.rand(tensor.shape, generator=generator)
    return state


def write_images(where: Path, n: int, size: int) -> None:
    """n smooth random images: PNG files, and a release of the same bytes in the same order."""
    rng = np.random.default_rng(0)
    (where / "images").mkdir()
    release = where / "release"
    (release / "images").mkdir(parents=True)
    classes = (ClassEntry(0, "c0", "all", "all"),)
    header = {"classes": json.dumps([vars(entry) for entry in classes])}
    shards = []
    for start in range(0, n, SHARD):
        rows = []
        for i in range(start, min(start + SHARD, n)):
            coarse = Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8))
            data = io.BytesIO()
            coarse.resize((size, size), Image.Resampling.BICUBIC).save(data, "png")
            (where / "images" / f"{i:06d}.png").write_bytes(data.getvalue())
            image = {"bytes": data.getvalue(), "path": None}
            rows.append({"image": image, "label": 0, "image_id": f"{i:06d}"})
        path = release / "images" / f"train-{start:06d}.parquet"
        pq.write_table(pa.Table.from_pylist(rows).replace_schema_metadata(header), path)
        shards.append(
            ShardRecord(
                path=f"images/{path.name}",
                rows=len(rows),
                bytes=path.stat().st_size,
                sha256=sha256_file(path),
                fingerprint="",
                per_class={"c0": len(rows)},
            )
        )
    Manifest("speed", "synthetic", "none", "A", "cc0-1.0", classes, {}, tuple(shards)).write(
        release
    )


def trace_report(rounds: int) -> dict[str, Any]:
    first, second = (covariance(seed) for seed in (1, 2))
    target = GaussianReference(3 * DIMENSIONS, np.zeros(DIMENSIONS), first)

    def ours() -> float:
        fresh = GaussianReference(target.n, target.mean, target.covariance)
        return fresh.root_trace(second, target.n - 1)

    loops: dict[str, Callable[[], float]] = {
        "scipy sqrtm": lambda: float(np.trace(np.real(linalg.sqrtm(first @ second)))),
        "ours": ours,
    }
    seconds: dict[str, list[float]] = {name: [] for name in loops}
    values: dict[str, float] = {}
    for _ in range(rounds):
        for name, loop in loops.items():
            started = time.perf_counter()
            values[name] = loop()
            seconds[name].append(time.perf_counter() - started)
            print(f"{name:12s} {seconds[name][-1]:6.2f} s, trace {values[name]:.10g}", flush=True)
    medians = {name: statistics.median(found) for name, found in seconds.items()}
    difference = abs(values["ours"] / values["scipy sqrtm"] - 1)
    if difference > 1e-6:
        raise SystemExit(f"traces differ by {difference:.1e}")
    return {
        "trace_ratio": medians["scipy sqrtm"] / medians["ours"],
        "trace_s": medians,
        "trace_difference": difference,
        "dimensions": DIMENSIONS,
    }


def covariance(seed: int) -> np.ndarray:
    """float64[D,D] of features as a ReLU leaves them, 3·D of them."""
    rng = np.random.default_rng(seed)
    mixing = np.random.default_rng(0).normal(size=(DIMENSIONS, DIMENSIONS)) / DIMENSIONS**0.5
    mixing *= np.logspace(0, -1.5, DIMENSIONS)[:, None]
    features = (rng.normal(size=(3 * DIMENSIONS, DIMENSIONS)) @ mixing).clip(min=0)
    return Moments.from_features(features).covariance


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--n", type=int, default=2000)
    parser.add_argument("--size", type=int, default=256, help="pixels of the images")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--trace-rounds", type=int, default=3)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--only-features", action="store_true")
    parser.add_argument("--only-trace", action="store_true")
    return parser.parse_args()


if __name__ == "__main__":
    main()
