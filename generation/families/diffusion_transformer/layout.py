"""Files of networks with DiT's body in their authors' layouts: what their tensors do not tell."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

# REPA's heads that predict an encoder's features, which training alone looks at
PROJECTOR = re.compile(r"projectors\.\d+\.[024]\.(weight|bias)")
DECODER = re.compile(r"decoder_blocks\.(?P<number>\d+)\.(?P<rest>.+)")


@dataclass(frozen=True)
class Layout:
    """flow: says a velocity, else epsilon. reversed: its time runs from 0, data, to 1, noise, and
    its velocity with it. guided: channels, of so many, None for all. renamed: its tensors by the
    keys of DiT's layout; what it does not know it leaves as it is."""

    flow: bool
    reversed: bool = False
    guided: tuple[int, int] | None = (3, 4)
    renamed: "Callable[[Mapping[str, Tensor]], dict[str, Tensor]]" = dict


def without_projectors(state: "Mapping[str, Tensor]") -> "dict[str, Tensor]":
    """REPA's: SiT's keys and the projectors'. In its first files the blocks behind the aligned one
    count anew, as decoder_blocks."""
    first = len({key.split(".")[1] for key in state if key.startswith("blocks.")})
    found = {}
    for key, tensor in state.items():
        if PROJECTOR.fullmatch(key):
            continue
        behind = DECODER.fullmatch(key)
        if behind is not None:
            key = f"blocks.{first + int(behind['number'])}.{behind['rest']}"  # noqa: PLW2901
        found[key] = tensor
    return found


DIT_LAYOUT = Layout(flow=False)
SIT_LAYOUT = Layout(flow=True)
REPA_LAYOUT = Layout(flow=True, reversed=True, guided=None, renamed=without_projectors)
