"""What the values of a "scores" result are called where people read them."""

from collections.abc import Iterable
from typing import Any, Literal

from cards.drawing.tables import Column
from metrics.scoring.directions import score_direction, score_split
from metrics.scoring.metric_list import value_names


def score_column(key: str, stated: str | None = None) -> Column:
    """Of a result's value such as "fd_train". stated: the direction that the result gives."""
    return Column(key, score_name(key), better=score_direction(key, stated))


def score_unit(key: str) -> Literal["fraction", "number"]:
    """Of a metric that is not known a plain number."""
    known = value_names().get(score_split(key)[0])
    return known.unit if known else "number"


def score_name(key: str) -> str:
    """ "FD to train" for "fd_train"; a name that is not known here as it stands."""
    metric, split = score_split(key)
    name = value_names().get(metric)
    if name is None:
        return key.replace("_", " ")
    return f"{name.label} {name.against} {split}" if split else name.label


def in_order(keys: Iterable[str]) -> list[str]:
    """By metric as listed, train before test; unknown ones last."""
    known = list(value_names())

    def place(key: str) -> tuple[int, str]:
        metric, split = score_split(key)
        place = known.index(metric) if metric in known else len(known)
        return place, "" if split == "train" else split or key

    return sorted(dict.fromkeys(keys), key=place)


def extractor_name(settings: dict[str, Any]) -> str:
    """Name of the extractor whose features were compared, wherever the protocol holds it."""
    names = [str(v) for key, v in settings.items() if key.endswith(".extractor")]
    return names[0] if names else "features of an unnamed extractor"
