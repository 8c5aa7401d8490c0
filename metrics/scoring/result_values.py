"""What one of the values of a "scores" result holds."""

from typing import Literal

from pydantic import ConfigDict

from release.results.values import Part, Value

# Each metric says more of its own, such as its settings, bias or threshold.
WITH_ITS_OWN = ConfigDict(frozen=True, allow_inf_nan=False, extra="allow")


class ClassValue(Value):
    """A score within one class."""

    model_config = WITH_ITS_OWN

    wnid: str
    name: str
    n: int


class Pair(Part):
    """A generated image and the training image that lies nearest to it, by their ids."""

    image: str
    nearest: str
    distance: float


class ScoredValue(Value):
    """per_class: the score within each class, where the metric gives it. better: what is, if said.

    Of near copies: pairs, the closest ones; expected, the share an honest generator has.
    """

    model_config = WITH_ITS_OWN

    better: Literal["higher", "lower"] | None = None
    per_class: tuple[ClassValue, ...] = ()
    pairs: tuple[Pair, ...] = ()
    expected: float | None = None
