"""How often a class is called helped or harmed where nothing but chance differs.

Two groups of trainings of the same arm are compared as the leaderboard and the study compare two
arms. First the runs of the committed studies, every pair of seeds of one arm: with one seed on
either side no class may be named. Then drawn trainings, since three committed seeds make no two
groups of three: an image is right where its class's level, its own hardness, what the seed does to
the class and what it does to the image come to more than 0. Both groups have the same levels, so
every class named is named by chance; in the cases "other images" the hardness of an image is
another in the second arm (correlation 0.8), as if it learned the class from other pictures. How
much a seed moves a class's accuracy is set to what the committed runs do: their median, and their
root mean square, which a few unstable arms decide. Written to OUT/null.json and OUT/null.md.

    python benchmarks/trust/null_classes.py --studies results/fashion-mnist \\
        --out results/null-classes
"""

import argparse
import json
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib.metadata import version
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from cards.measured.class_changes import changes_between
from cards.measured.rankings import Training, classifier_rankings
from cards.measured.result_schema import parse_result
from classifiers.training.class_verdicts import FEWEST_SEEDS, class_rows
from classifiers.training.outcomes import Outcomes
from release.files.commit import canonical_json, write_atomically
from release.results.result import read_result
from release.results.statistics import LEVEL, wilson

OWN_NOISE = 0.15  # of an image from seed to seed: two seeds disagree on 4%, as committed ones do
SAME_HARDNESS = 0.8  # correlation of an image's hardness between arms
LEVELS = (0.0, 2.0)  # latent accuracy of the classes: 50% to 98%


@dataclass(frozen=True)
class Case:
    """seed_effect: standard deviation of what a seed does to a class, on the latent scale."""

    name: str
    classes: int
    images: int
    seeds: int
    seed_effect: float
    other_images: bool
    pairs: int


def cases(pairs: int) -> Iterator[Case]:
    """All that is drawn."""
    for classes, images, share in ((10, 1000, 1), (1000, 50, 5)):
        for name, effect, other in (
            ("median seed noise", 0.09, False),
            ("strong seed noise", 0.25, False),
            ("median seed noise, other images", 0.09, True),
        ):
            for seeds in (1, 3, 5):
                yield Case(name, classes, images, seeds, effect, other, pairs // share)


def drawn_pair(case: Case, rng: np.random.Generator) -> tuple[Outcomes, Outcomes, float]:
    """Two arms of the same accuracies; the first one's median deviation over seeds, a class."""
    labels = np.repeat(np.arange(case.classes), case.images)
    levels = rng.uniform(*LEVELS, case.classes)[labels]
    hardness = rng.standard_normal(len(labels))
    arms = []
    for arm in range(2):
        own = hardness
        if arm and case.other_images:
            fresh = rng.standard_normal(len(labels))
            own = SAME_HARDNESS * hardness + (1 - SAME_HARDNESS**2) ** 0.5 * fresh
        of_class = case.seed_effect * rng.standard_normal((case.seeds, case.classes))
        of_image = OWN_NOISE * rng.standard_normal((case.seeds, len(labels)))
        arms.append(levels + own + of_class[:, labels] + of_image > 0)
    shares = arms[0].reshape(case.seeds, case.classes, case.images).mean(axis=2)
    spread = float(np.median(shares.std(axis=0, ddof=1))) if case.seeds > 1 else float("nan")
    return outcomes(arms[0], labels), outcomes(arms[1], labels), spread


def outcomes(correct: np.ndarray, labels: np.ndarray) -> Outcomes:
    """bool[S,N] as predictions: the label where right, the next one where wrong."""
    top = np.where(correct, labels, labels + 1)[:, :, None].astype(np.int32)
    return Outcomes(tuple(range(len(correct))), tuple(map(str, range(len(labels)))), labels, top)


def simulate(case: Case) -> dict[str, Any]:
    """Of how many pairs at least one class is named."""
    rng = np.random.default_rng([case.classes, case.seeds, round(1000 * case.seed_effect)])
    names = [(f"c{i}", f"class {i}") for i in range(case.classes)]
    named, classes_named, spreads = 0, 0, []
    for _ in range(case.pairs):
        before, after, spread = drawn_pair(case, rng)
        found = sum(bool(row["verdict"]) for row in class_rows(before, after, names))
        named, classes_named = named + bool(found), classes_named + found
        spreads.append(spread)
    deviation = None if case.seeds == 1 else float(np.median(spreads))
    return asdict(case) | counted(named, case.pairs, classes_named) | {"deviation": deviation}


def counted(named: int, pairs: int, classes_named: int) -> dict[str, Any]:
    low, high = wilson(np.array([named / pairs]), np.array([pairs]))
    interval = [float(low[0]), float(high[0])]
    return {"pairs": pairs, "named": named, "classes_named": classes_named, "interval": interval}


def committed(folder: Path) -> dict[str, Any]:
    """Every two seeds of one arm of the studies below `folder`, as the leaderboard has them."""
    arms: dict[str, list[Training]] = defaultdict(list)
    for path in sorted(folder.glob("study*/runs/**/*.json")):
        result = read_result(path)
        (ranking,) = classifier_rankings([parse_result(path, result)])
        (row,) = ranking.rows
        arms[canonical_json([result.subject, result.protocol, result.reference])].append(row)
    deviations = [
        np.std([[c.top1 for c in run.per_class] for run in runs], axis=0, ddof=1)
        for runs in arms.values()
    ]
    found = [
        sum(bool(change.verdict) for change in changes_between(one, other)[0])
        for runs in arms.values()
        for one, other in combinations(runs, 2)
    ]
    return {
        "name": "committed studies",
        "classes": len(next(iter(arms.values()))[0].per_class),
        "images": 1000,
        "seeds": 1,
        "arms": len(arms),
        "deviation": float(np.median(deviations)),
        "deviation_rms": float(np.sqrt(np.mean(np.square(deviations)))),
    } | counted(sum(map(bool, found)), len(found), sum(found))


def markdown(rows: list[dict[str, Any]]) -> str:
    """The table people read."""
    lines = [
        "# Classes named where nothing but chance differs",
        "",
        f"Two groups of trainings of the same arm; a class is named at a false discovery rate of "
        f"{LEVEL:.0%}, with {FEWEST_SEEDS} seeds or more on either side. Written by "
        "`benchmarks/trust/null_classes.py`, which says how the trainings are drawn.",
        "",
        "| runs | classes | images of each | seeds | deviation over seeds, points | pairs "
        "| with a class named | 95% interval |",
        "|---|---:|---:|---|---:|---:|---:|---|",
    ]
    for row in rows:
        deviation = "" if row["deviation"] is None else f"{100 * row['deviation']:.1f}"
        low, high = (f"{100 * end:.1f}" for end in row["interval"])
        lines.append(
            f"| {row['name']} | {row['classes']:,} | {row['images']:,} | {row['seeds']} against "
            f"{row['seeds']} | {deviation} | {row['pairs']:,} | {row['named']} "
            f"({row['named'] / row['pairs']:.1%}) | {low} to {high}% |"
        )
    lines += [
        "",
        "Each of the two tests takes for fixed what the other draws anew. Where seeds and images "
        'both differ ("other images") and matter equally, a class is named a little more often '
        "than the level says.",
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--studies", type=Path, required=True, help="folder of study*/runs")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument(
        "--pairs", type=int, default=1000, help="drawn of 10 classes; of 1,000 a fifth"
    )
    arguments = parser.parse_args()
    rows = [committed(arguments.studies)]
    for case in cases(arguments.pairs):
        rows.append(simulate(case))
        print(canonical_json(rows[-1]), flush=True)
    versions = {name: version(name) for name in ("numpy", "scipy", "statsmodels")}
    document = {"level": LEVEL, "fewest_seeds": FEWEST_SEEDS, "rows": rows, "versions": versions}
    write_atomically(arguments.out / "null.json", (json.dumps(document, indent=1) + "\n").encode())
    write_atomically(arguments.out / "null.md", markdown(rows).encode())


if __name__ == "__main__":
    main()
