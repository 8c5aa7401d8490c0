"""What a corruption of ImageNet-C is."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple


class Corruption(NamedTuple):
    """function: of image float64[H,W,3] in [0, 1], a constant and random numbers.

    constants: at severity 1 to 5. settings: what else decides its pixels.
    """

    function: Callable[..., Any]
    constants: tuple[object, ...]
    settings: Mapping[str, Any] = {}
