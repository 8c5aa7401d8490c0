"""How often does the 95% interval of FD∞ hold the distance between infinitely many images?

Draws with replacement from a population whose distance is known exactly: features of 20,000 real
Fashion-MNIST images (efficientnet-lite0-64, 1,280-d; also projected to fewer dimensions), or points
of a skewed, heavy-tailed distribution. Each pair of distributions ("same": one against itself,
"other": another mean and covariance, or five of ten classes against all) is drawn `--draws` times
at each number of images a dimension. Writes OUT/coverage.json and OUT/coverage.md; rerun to go on.

    python benchmarks/trust/fd_infinity_coverage.py --dimensions 64 --times 1,3,5,10 --draws 100
    python benchmarks/trust/fd_infinity_coverage.py --dimensions 320 --times 5,10 --draws 40
    python benchmarks/trust/fd_infinity_coverage.py --dimensions 1280 --times 5 --reference-times 1
"""

import argparse
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from metrics.features.extractors import DEFAULT_EXTRACTOR, load_extractor
from metrics.states.frechet import (
    IMAGES_PER_DIMENSION,
    GaussianReference,
    Moments,
    bucket_moments,
    frechet_infinity,
)
from metrics.states.intervals import jackknife
from release.files.commit import write_atomically
from release.images.decoding import decode_rgb
from release.images.views import make_view
from release.real_sources.opening import open_source
from release.results.result import environment
from release.results.statistics import wilson

REAL_IMAGES = 20_000
POPULATION = 20_000


@dataclass(frozen=True)
class Population:
    """float[N,D]: every draw is one of its rows, so its moments are those of the distribution."""

    points: np.ndarray

    def draw(self, rng: np.random.Generator, n: int) -> np.ndarray:
        return self.points[rng.integers(0, len(self.points), n)]

    @property
    def gaussian(self) -> tuple[np.ndarray, np.ndarray]:
        """Mean and covariance, divided by N."""
        moments = Moments.from_features(self.points)
        return moments.mean, moments.scatter / moments.n


@dataclass(frozen=True)
class Pair:
    """Images of `images` are measured against those of `reference`."""

    features: str
    pair: str
    images: Population
    reference: Population

    @property
    def dimensions(self) -> int:
        return int(self.images.points.shape[1])

    @property
    def truth(self) -> float:
        """The distance between infinitely many."""
        many = 10**9
        if self.images is self.reference:
            return 0.0
        mean, covariance = self.images.gaussian
        moments = Moments(many, mean * many, covariance * (many - 1))
        return GaussianReference(many, *self.reference.gaussian).distance(moments)


def real_features(cache: Path) -> tuple[np.ndarray, np.ndarray]:
    """float32[N,1280] and labels int64[N] of real training images, computed once."""
    if not cache.is_file():
        split = open_source("fashion-mnist").splits["train"]
        rows = np.random.default_rng(0).permutation(len(split.labels))[:REAL_IMAGES]
        views = [make_view(decode_rgb(split.read(i)), 32, "pad") for i in rows]
        images = np.stack(views)
        found = load_extractor(DEFAULT_EXTRACTOR, "cpu").extract(images).features
        cache.parent.mkdir(parents=True, exist_ok=True)
        np.savez(cache, features=found, labels=np.array(split.labels)[rows])
    with np.load(cache) as stored:
        return stored["features"], stored["labels"]


def real_pairs(cache: Path, dimensions: int) -> list[Pair]:
    """All ten classes against themselves, and five of them against all."""
    features, labels = real_features(cache)
    if dimensions < features.shape[1]:
        mixing = np.random.default_rng(1).normal(size=(features.shape[1], dimensions))
        features = features @ (mixing / np.sqrt(dimensions)).astype(np.float32)
    every, half = Population(features), Population(features[labels < 5])
    return [Pair("real", "same", every, every), Pair("real", "other", half, every)]


def made_up_pairs(dimensions: int) -> list[Pair]:
    """Shifted gamma variables, mixed: skewness 1.4, excess kurtosis 3, variances over 1 … 1/D."""
    rng = np.random.default_rng(2)
    mixing = np.linalg.qr(rng.normal(size=(dimensions, dimensions)))[0]
    scale = np.arange(1, dimensions + 1) ** -0.5
    points = (rng.gamma(2.0, size=(POPULATION, dimensions)) - 2) / 2**0.5
    first = Population((points * scale) @ mixing)
    other = Population((points * scale * 1.1 + 0.1 * scale) @ mixing)
    return [Pair("gamma", "same", first, first), Pair("gamma", "other", other, first)]


def one_draw(pair: Pair, n: int, reference_n: int, seed: int) -> dict[str, Any]:
    """FD and FD∞ with its interval."""
    rng = np.random.default_rng(seed)
    images, reference = (
        bucket_moments(p.draw(rng, m), rng.integers(0, 2**63, m, dtype=np.uint64))
        for p, m in ((pair.images, n), (pair.reference, reference_n))
    )
    target = GaussianReference.from_buckets(reference)
    own = jackknife(images, target.distance)
    found = frechet_infinity(images, own, target)
    return {"seed": seed, "fd": own.value, "value": found.value, "interval": found.interval}


def simulate(
    pair: Pair, times: float, reference_times: float, draws: int, done: dict[str, Any]
) -> dict[str, Any]:
    """A row of the table: the draws of `done`, and more up to `draws`."""
    n, m = (round(k * pair.dimensions) for k in (times, reference_times))
    found = list(done.get("by_seed", []))
    started = time.time()
    found += [one_draw(pair, n, m, seed) for seed in range(len(found), draws)]
    values, truth = np.array([row["value"] for row in found]), pair.truth
    ends = np.array([row["interval"] for row in found])
    hits = int(((ends[:, 0] <= truth) & (truth <= ends[:, 1])).sum())
    low, high = wilson(np.array([hits / len(found)]), np.array([len(found)]))
    return {
        "features": pair.features,
        "pair": pair.pair,
        "dimensions": pair.dimensions,
        "n": n,
        "reference_n": m,
        "given": min(times, reference_times) >= IMAGES_PER_DIMENSION,
        "truth": truth,
        "fd_mean": float(np.mean([row["fd"] for row in found])),
        "infinity_mean": float(values.mean()),
        "infinity_std": float(values.std(ddof=1)),
        "half_width_mean": float((ends[:, 1] - ends[:, 0]).mean() / 2),
        "covered": hits / len(found),
        "covered_interval": [float(low[0]), float(high[0])],
        "draws": len(found),
        "seconds": done.get("seconds", 0.0) + time.time() - started,
        "by_seed": found,
    }


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Markdown."""
    head = "features pair dimensions n against truth FD FD∞ std half-width covered draws given"
    lines = ["| " + " | ".join(head.split()) + " |", "|---|---|" + "--:|" * 9 + "---|"]
    for row in rows:
        numbers = ("truth", "fd_mean", "infinity_mean", "infinity_std", "half_width_mean")
        cells = [row["features"], row["pair"], f"{row['dimensions']:,}", f"{row['n']:,}"]
        cells += [f"{row['reference_n']:,}", *(f"{row[name]:.4g}" for name in numbers)]
        cells += [f"{row['covered']:.0%}", str(row["draws"]), "yes" if row["given"] else "refused"]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


HEADING = """# Coverage of the interval of FD∞

Share of draws whose 95% interval holds the distance between infinitely many images, which is known:
draws with replacement from finite populations. real: features of {images:,} Fashion-MNIST training
images ({extractor}), five classes against ten as the other pair; fewer dimensions by random
projection. gamma: skewed, heavy-tailed, variances over 1 … 1/D. Refused: fewer than {threshold}
images a dimension on a side. Seeds 0 … draws - 1; every draw stands in coverage.json.

"""


def main() -> None:
    """Dimensions one after the other; a row that is there is not drawn again."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--out", type=Path, default=Path("results/fd-infinity-coverage"))
    parser.add_argument("--cache", type=Path, default=Path("runs/fd-infinity-features.npz"))
    parser.add_argument("--draws", type=int, default=100)
    parser.add_argument("--dimensions", default="64,320", help="comma-separated, up to 1280")
    parser.add_argument("--times", default="1,3,5,10", help="images a dimension")
    parser.add_argument("--reference-times", default="1,3", help="real images for each of these")
    arguments = parser.parse_args()
    path = arguments.out / "coverage.json"
    rows = json.loads(path.read_text())["rows"] if path.is_file() else []
    by_name = {_name(row): row for row in rows}
    for dimensions in map(int, arguments.dimensions.split(",")):
        pairs = real_pairs(arguments.cache, dimensions) + made_up_pairs(dimensions)
        for pair in pairs:
            for times in map(float, arguments.times.split(",")):
                for more in map(float, arguments.reference_times.split(",")):
                    reference_times = more * times
                    sizes = [round(k * dimensions) for k in (times, reference_times)]
                    name = (pair.features, pair.pair, dimensions, *sizes)
                    with threadpool_limits(1):
                        by_name[name] = simulate(
                            pair, times, reference_times, arguments.draws, by_name.get(name, {})
                        )
                    _write(path, [by_name[key] for key in sorted(by_name)])


def _name(row: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(row[key] for key in ("features", "pair", "dimensions", "n", "reference_n"))


def _write(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    document = {
        "threshold": IMAGES_PER_DIMENSION,
        "extractor": DEFAULT_EXTRACTOR,
        "rows": list(rows),
        "environment": environment(),
    }
    write_atomically(path, (json.dumps(document, indent=1) + "\n").encode())
    heading = HEADING.format(
        images=REAL_IMAGES, extractor=DEFAULT_EXTRACTOR, threshold=IMAGES_PER_DIMENSION
    )
    write_atomically(path.with_suffix(".md"), (heading + table(rows)).encode())


if __name__ == "__main__":
    main()
