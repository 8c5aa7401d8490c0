"""What a metric is: the state it reads, its values and their names."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from metrics.features.release_features import FeatureBlock

Value = dict[str, Any]
Values = dict[str, Value]


@dataclass(frozen=True)
class WholeSet:
    """What a block's state needs to know of the set it belongs to.

    keys uint64[n]: of all images, ascending; per_class int64[C]: how many each class has; sample:
    how many make a sample; logit_columns int64[C]: the extractor's logit of each class, None where
    it does not know them.
    """

    keys: np.ndarray
    per_class: np.ndarray
    sample: int
    logit_columns: np.ndarray | None


@dataclass(frozen=True)
class StateKind:
    """A kind of state that several metrics may read.

    of_block: state of one block of features, given what is known of the whole set.
    reference: type of what is kept on disk of a real split's state if metrics measure against it:
    a dataclass of arrays and numbers. keep: that of a state. prepare: what metrics get of it.
    """

    of_block: Callable[[FeatureBlock, WholeSet], Any]
    reference: type | None = None
    keep: Callable[[Any], Any] = lambda state: state.total
    prepare: Callable[[Any], Any] = lambda kept: kept


@dataclass(frozen=True)
class ValueName:
    """What a value is called where people read it.

    against: the word between it and the split it is measured against; better: "higher", "lower" or
    neither; unit: "fraction" of a share of images; headline: whether it stands before all others.
    """

    label: str
    against: str = ""
    better: Literal["higher", "lower", ""] = ""
    unit: Literal["fraction", "number"] = "number"
    headline: bool = False


@dataclass(frozen=True)
class Metric:
    """values: from the state of the images and, if measured against something, from that one's.

    names: of each of its values. against: every real split, the nearest images of the real train
    split, a held-out split and train together, or nothing. beside: the kind of state of train that
    it reads, where that is another. needs: what of the extractor it reads besides its features.
    """

    kind: str
    values: Callable[..., Values]
    names: Mapping[str, ValueName]
    against: Literal["references", "train", "held-out", "nothing"] = "references"
    beside: str | None = None
    needs: Literal["logits", "classes", "spatial"] | None = None
    settings: dict[str, Any] = field(default_factory=dict)
