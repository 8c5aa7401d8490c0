"""What is better of a value of a "scores" result, by its name."""

from metrics.scoring.metric_list import value_names

SPLITS = ("train", "validation", "test", "tuning")
REFERENCE = "_reference_"  # between a metric and the name of the file it was measured against


def score_direction(key: str, stated: str | None = None) -> str:
    """What is better: as the result states it, else as the metric is known; "" if neither."""
    known = value_names().get(score_split(key)[0])
    return stated or (known.better if known else "")


def score_split(key: str) -> tuple[str, str | None]:
    """Metric and what it was measured against: one of SPLITS, "reference NAME" or nothing."""
    known = value_names()
    if key in known:
        return key, None
    metric, between, name = key.partition(REFERENCE)
    if between and metric in known:
        return metric, f"reference {name}"
    metric, _, split = key.rpartition("_")
    return (metric, split) if split in SPLITS and metric else (key, None)
