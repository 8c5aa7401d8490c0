"""What the predictions of several trainings say: differences, classes helped or harmed, confusions.

All runs are tested on the same images, so runs are compared image by image. Two kinds of chance are
told apart: in which seed a classifier was trained with, and in which test images were drawn.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from classifiers.training.predictions import TOP
from release.errors import UserError
from release.files.storage import ReleasePath
from release.results.proportions import CONFIDENCE, wilson

RESAMPLES = 2000
FEWEST_SEEDS = 3  # that name a class as helped or harmed
LEVEL = 0.05  # false discovery rate of the classes named as helped or harmed


@dataclass(frozen=True)
class Outcomes:
    """The predictions of one arm, trained with several seeds.

    seeds int; image_ids str[N]; labels int64[N]; top int32[S,N,k], the k most probable labels.
    """

    seeds: tuple[int, ...]
    image_ids: tuple[str, ...]
    labels: np.ndarray
    top: np.ndarray

    def correct(self, k: int = 1) -> np.ndarray:
        """bool[S,N]: the true label is among the first k."""
        return (self.top[:, :, :k] == self.labels[None, :, None]).any(axis=2)  # type: ignore[no-any-return]


def read_outcomes(paths: dict[int, ReleasePath]) -> Outcomes:
    """The predictions that `train-classifier` wrote, by seed; UserError unless of one test set."""
    tables = {seed: pq.read_table(path) for seed, path in sorted(paths.items())}
    first = next(iter(tables.values()))
    for seed, table in tables.items():
        for column in ("image_id", "label"):
            if not table[column].equals(first[column]):
                raise UserError(f"{paths[seed]} is of other test images than the other seeds'")
    top = [top_labels(table) for table in tables.values()]
    return Outcomes(
        seeds=tuple(tables),
        image_ids=tuple(first["image_id"].to_pylist()),
        labels=first["label"].to_numpy().astype(np.int64),
        top=np.stack(top),
    )


def of_the_same_images(paths: Iterable[ReleasePath]) -> bool:
    """Whether predictions can be paired one by one: the same ids, and labels, of test images."""
    tables = [pq.read_table(path, columns=["image_id", "label"]) for path in paths]
    return all(table.equals(tables[0]) for table in tables)


def top_labels(table: pa.Table) -> np.ndarray:
    """int32[N,k] of a table of predictions: the k most probable labels of each image."""
    flat: np.ndarray = table["top5"].combine_chunks().flatten().to_numpy()
    return flat.reshape(len(table), -1).astype(np.int32, copy=False)


def accuracy(outcomes: Outcomes, k: int) -> dict[str, Any]:
    """Top-k: mean and standard deviation over seeds, each seed's, n test images, their interval.

    interval: Wilson's, of the mean over seeds on n images (95%); None of chance in seeds.
    """
    by_seed = outcomes.correct(k).mean(axis=1)
    mean, n = float(by_seed.mean()), len(outcomes.labels)
    low, high = wilson(np.array([mean]), np.array([n]))
    return {
        "mean": mean,
        "std": float(by_seed.std(ddof=1)) if len(by_seed) > 1 else None,
        "by_seed": {str(s): float(v) for s, v in zip(outcomes.seeds, by_seed, strict=True)},
        "n": n,
        "interval": [float(low[0]), float(high[0])],
    }


def difference(baseline: Outcomes, other: Outcomes) -> dict[str, Any]:
    """Top-1 of `other` less that of `baseline`, and three 95% intervals.

    over_seeds: Student's, of the differences paired by seed; over_images: Student's, of each test
    image's difference; over_classes: percentile bootstrap that draws classes anew, for what another
    choice of classes would have given. p_seeds: of the paired t test. None where there are too few.
    """
    require_paired(baseline, other)
    gains = other.correct().astype(float) - baseline.correct()
    by_seed, by_image = gains.mean(axis=1), gains.mean(axis=0)
    present, index = np.unique(baseline.labels, return_inverse=True)
    by_class = np.bincount(index, by_image) / np.bincount(index)
    return {
        "value": float(by_seed.mean()),
        "by_seed": {str(s): float(v) for s, v in zip(baseline.seeds, by_seed, strict=True)},
        "over_seeds": student_interval(by_seed),
        "p_seeds": paired_p(by_seed, len(by_image)),
        "over_images": student_interval(by_image),
        "over_classes": _bootstrap(by_class) if len(present) > 2 else None,
        "n": len(by_image),
    }


def require_paired(baseline: Outcomes, other: Outcomes) -> None:
    """UserError unless both have the same seeds and test images."""
    if baseline.seeds != other.seeds:
        raise UserError(f"seeds {other.seeds} cannot be paired with {baseline.seeds}")
    if baseline.image_ids != other.image_ids:
        raise UserError("two arms were tested on different images: they cannot be paired")


def student_interval(values: np.ndarray) -> list[float] | None:
    """Student's 95% interval of the mean of independent values; None for fewer than two."""
    if len(values) < 2:
        return None
    return around(float(values.mean()), float(values.std(ddof=1) / len(values) ** 0.5), len(values))


def around(value: float, error: float, n: int) -> list[float]:
    """Student's 95% interval of a value with its standard error from n independent parts."""
    from scipy.stats import t

    half = float(t.ppf((1 + CONFIDENCE) / 2, n - 1)) * error
    return [value - half, value + half]


def _bootstrap(values: np.ndarray) -> list[float]:
    from scipy.stats import bootstrap

    if values.std() == 0:
        return [float(values.mean())] * 2
    found = bootstrap(
        (values,),
        np.mean,
        n_resamples=RESAMPLES,
        confidence_level=CONFIDENCE,
        method="percentile",
        rng=np.random.default_rng(0),
    )
    return [float(found.confidence_interval.low), float(found.confidence_interval.high)]


def class_rows(
    baseline: Outcomes, other: Outcomes, names: Sequence[tuple[str, str]]
) -> list[dict[str, Any]]:
    """Each class's top-1 under both, its difference, and whether it was helped or harmed.

    Two tests must tell it apart, since each takes for fixed what the other draws anew. p_images:
    McNemar's exact test on the images that one arm gets right more often than the other (over
    seeds; with one seed it is McNemar's as it stands). p_seeds: the t test of the class's top-1,
    paired by seed; fewer than three seeds tell none apart. The larger of the two is corrected
    over the classes to a false discovery rate of 5% (Benjamini & Hochberg 1995). names: wnid and
    name of each class; classes without images have no row.
    """
    require_paired(baseline, other)
    counts = ClassCounts.of(baseline, other)
    rows = [
        {
            "wnid": names[label][0],
            "name": names[label][1],
            "label": label,
            "n": n,
            "baseline": float(before.mean()),
            "other": float(after.mean()),
            "gained": gained,
            "lost": lost,
            "p_images": p_images,
            "p_seeds": paired_p(after - before, n),
        }
        for label, n, before, after, gained, lost, p_images in counts.rows()
    ]
    for key in ("baseline", "other"):
        ends = np.transpose(wilson(np.array([row[key] for row in rows]), counts.n))
        for row, interval in zip(rows, ends.tolist(), strict=True):
            row[f"{key}_interval"] = interval
    _add_verdicts(rows, len(baseline.seeds))
    return rows


def _add_verdicts(rows: list[dict[str, Any]], seeds: int) -> None:
    """Below FEWEST_SEEDS every p is 1: what seeds change is unknown."""
    from scipy.stats import false_discovery_control

    enough = seeds >= FEWEST_SEEDS
    larger = [max(row["p_images"], row["p_seeds"]) if enough else 1.0 for row in rows]
    for row, p in zip(rows, false_discovery_control(larger, method="bh"), strict=True):
        row["difference"] = row["other"] - row["baseline"]
        row["p_adjusted"] = float(p)
        row["verdict"] = ("helped" if row["difference"] > 0 else "harmed") if p <= LEVEL else ""


@dataclass(frozen=True)
class ClassCounts:
    """What two arms got right of each class that has images, K of them, with each of S seeds.

    labels, n int64[K]: the classes and their test images; before, after float64[S,K]: top-1;
    gained, lost int64[K]: images that one of the two gets right more often than the other.
    """

    labels: np.ndarray
    n: np.ndarray
    before: np.ndarray
    after: np.ndarray
    gained: np.ndarray
    lost: np.ndarray

    @classmethod
    def of(cls, baseline: Outcomes, other: Outcomes) -> "ClassCounts":
        """The two have the same images and seeds."""
        labels, place = np.unique(baseline.labels, return_inverse=True)

        def by_class(flags: np.ndarray) -> np.ndarray:
            return np.bincount(place, flags, len(labels))

        n = np.bincount(place)
        before, after = baseline.correct(), other.correct()
        by_image = after.sum(axis=0) - before.sum(axis=0)
        return cls(
            labels=labels,
            n=n,
            before=np.stack([by_class(run) for run in before]) / n,
            after=np.stack([by_class(run) for run in after]) / n,
            gained=by_class(by_image > 0).astype(int),
            lost=by_class(by_image < 0).astype(int),
        )

    def rows(self) -> Iterator[tuple[int, int, np.ndarray, np.ndarray, int, int, float]]:
        """label, n, before and after by seed, gained, lost, p of McNemar's exact test."""
        from scipy.stats import binom

        fewer, changed = np.minimum(self.gained, self.lost), self.gained + self.lost
        tails = binom.cdf(fewer, changed, 0.5) + binom.sf(changed - fewer - 1, changed, 0.5)
        whole = (self.labels, self.n, self.before.T, self.after.T, self.gained, self.lost)
        for label, n, before, after, gained, lost, p in zip(
            *whole, np.minimum(tails, 1.0), strict=True
        ):
            yield int(label), int(n), before, after, int(gained), int(lost), float(p)


def paired_p(differences: np.ndarray, n: int) -> float | None:
    """Of the two-sided t test that their mean is 0; None for fewer than two.

    differences: of accuracies on n images. These are multiples of 1/n, so some seeds' are alike by
    rounding alone: their variance is taken to be at least that of two rounded numbers.
    """
    from scipy.stats import t

    seeds = len(differences)
    if seeds < 2:
        return None
    variance = max(float(differences.var(ddof=1)), 1 / (6 * n * n))
    return 2 * float(t.sf(abs(differences.mean()) / (variance / seeds) ** 0.5, seeds - 1))


def confusions(
    baseline: Outcomes, other: Outcomes, names: Sequence[tuple[str, str]], most: int = 20
) -> list[dict[str, Any]]:
    """The pairs (true class, predicted class) whose frequency differs most between the two arms.

    Counts are means over seeds.
    """
    classes = len(names)
    counts = []
    for outcomes in (baseline, other):
        pairs = outcomes.labels[None] * classes + outcomes.top[:, :, 0]
        table = np.bincount(pairs.ravel(), minlength=classes**2) / len(outcomes.seeds)
        table[:: classes + 1] = 0  # the diagonal: no confusion
        counts.append(table)
    change = counts[1] - counts[0]
    order = np.argsort(-np.abs(change), kind="stable")[:most]
    return [
        {
            "true": names[pair // classes][1],
            "predicted": names[pair % classes][1],
            "baseline": float(counts[0][pair]),
            "other": float(counts[1][pair]),
        }
        for pair in order.tolist()
        if change[pair]
    ]


def name_ambiguity(prompts: Sequence[str]) -> list[dict[str, Any]]:
    """How easily each class's prompt is taken for another's: nearest prompt and its similarity.

    Cosine of the prompts' mean MiniLM embeddings, in [-1, 1]. A generator that reads prompts alone
    cannot tell apart what its text encoder does not.
    """
    from generation.prompts.text_encoder import encode_prompts

    pooled = encode_prompts(prompts).pooled[: len(prompts)].double().numpy()
    unit = pooled / np.linalg.norm(pooled, axis=1, keepdims=True)
    cosines = unit @ unit.T
    np.fill_diagonal(cosines, -np.inf)
    nearest = cosines.argmax(axis=1)
    return [
        {"nearest": prompts[int(j)], "similarity": float(cosines[i, j])}
        for i, j in enumerate(nearest)
    ]


def ambiguity_effect(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Spearman's correlation of classes' differences with the ambiguity of their names; n, p."""
    from scipy.stats import spearmanr

    similar = [row["ambiguity"]["similarity"] for row in rows]
    gains = [row["difference"] for row in rows]
    if len(rows) < 3 or len(set(similar)) < 2 or len(set(gains)) < 2:
        return {"spearman": None, "p": None, "n": len(rows)}
    found = spearmanr(similar, gains)
    return {"spearman": float(found.statistic), "p": float(found.pvalue), "n": len(rows)}


def has_top5(classes: int) -> bool:
    """With five classes or fewer it is always 1."""
    return classes > TOP
