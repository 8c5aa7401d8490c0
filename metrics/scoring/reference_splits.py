"""Which splits of a real release metrics read, for one set of images that is scored."""

from collections.abc import Iterable, Mapping, Sequence

from metrics.features.image_lists import ImageSet
from metrics.scoring.metric import Metric
from release.errors import UserError

HELD_OUT_SPLITS = ("test", "validation", "tuning")


def references_needed(
    metrics: Iterable[Metric], references: Sequence[ImageSet], subject: ImageSet
) -> list[ImageSet]:
    """Those of the real splits that these metrics read of the subject."""
    kinds = {metric.against for metric in metrics}
    if "references" in kinds:
        return list(references)
    if not kinds & {"train", "held-out"}:
        return []
    held_out = held_out_split(others(references, subject)) or held_out_split(references)
    return [r for r in (train_split(references), held_out) if r is not None]


def others(references: Iterable[ImageSet], subject: ImageSet) -> list[ImageSet]:
    """All but the subject itself, where it is one of the real splits."""
    return [r for r in references if r.identity != subject.identity]


def train_split(references: Iterable[ImageSet]) -> ImageSet | None:
    """What a generator may have copied from."""
    return next((r for r in references if r.split == "train"), None)


def held_out_split(references: Iterable[ImageSet]) -> ImageSet | None:
    """Real images that none was copied from."""
    return next((r for r in references if r.split in HELD_OUT_SPLITS), None)


def require_splits(metrics: Mapping[str, Metric], references: Sequence[ImageSet]) -> None:
    """UserError for a metric that needs a split that the real release lacks."""
    for name, metric in metrics.items():
        lacks = train_split(references) is None or held_out_split(references) is None
        if metric.against == "held-out" and lacks:
            known = ", ".join(reference.split for reference in references)
            raise UserError(
                f"metric {name!r} compares with train and with a held-out split "
                f"({', '.join(HELD_OUT_SPLITS[:2])}); --real has {known}"
            )


def ratio_left_out(
    metrics: Mapping[str, Metric], references: Sequence[ImageSet], subject: ImageSet
) -> str | None:
    """Why a real split has no ratio of distances: it is one of the two that these are taken of."""
    names = [name for name, metric in metrics.items() if metric.against == "held-out"]
    left = others(references, subject)
    if not names or len(left) == len(references):
        return None
    if train_split(left) is None:
        return f"{subject.label}: no {', '.join(names)}, as its distance to itself is 0"
    if held_out_split(left) is None:
        return (
            f"{subject.label}: no {', '.join(names)}, as it is the only held-out split, whose "
            "ratio to itself is 1"
        )
    return None
