"""Which classes one training set helps and which it harms, by one rule; what they are taken for.

The rule (`class_rows`) asks the seeds and the test images. Study and leaderboard share it.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from classifiers.training.outcomes import Outcomes, require_paired
from release.results.statistics import LEVEL, mcnemar_p, paired_p, rank_correlation, wilson

FEWEST_SEEDS = 3  # that name a class as helped or harmed


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
        columns = (self.labels, self.n, self.before.T, self.after.T, self.gained, self.lost)
        p_images = mcnemar_p(self.gained, self.lost)
        for label, n, before, after, gained, lost, p in zip(*columns, p_images, strict=True):
            yield int(label), int(n), before, after, int(gained), int(lost), float(p)


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
    similar = [row["ambiguity"]["similarity"] for row in rows]
    return rank_correlation(similar, [row["difference"] for row in rows])
