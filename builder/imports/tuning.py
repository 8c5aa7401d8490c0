"""Which real training images are set aside for tuning."""

from collections.abc import Sequence

import numpy as np

from builder.imports.id_hashes import hash_words

TUNING_SHARE = 10  # one image in ten of train, of each class
TUNING_RULE = "of each class in train, the tenth with the lowest SHA-256 of its image_id"


def tuning_rows(image_ids: Sequence[str], labels: Sequence[int]) -> np.ndarray:
    """bool[N]: the rows of train that selection may look at, and no result (TUNING_RULE)."""
    classes = np.asarray(labels, np.int64)
    order = np.lexsort((*hash_words(image_ids)[::-1], classes))
    _, starts, counts = np.unique(classes[order], return_index=True, return_counts=True)
    place = np.arange(len(classes)) - np.repeat(starts, counts)  # within its class
    chosen = np.zeros(len(classes), dtype=bool)
    chosen[order] = place < np.repeat(counts // TUNING_SHARE, counts)
    return chosen
