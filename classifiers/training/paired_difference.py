"""How far two training sets lie apart: accuracies paired by seed, by test image, by class.

Two kinds of chance stand apart: in which seed a classifier was trained with, and in which test
images were drawn.
"""

from typing import Any

import numpy as np

from classifiers.training.outcomes import Outcomes, require_paired
from release.results.statistics import bootstrap_interval, paired_p, student_interval


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
        "over_seeds": student_interval(by_seed, len(by_image)),
        "p_seeds": paired_p(by_seed, len(by_image)),
        "over_images": student_interval(by_image),
        "over_classes": bootstrap_interval(by_class) if len(present) > 2 else None,
        "n": len(by_image),
    }
