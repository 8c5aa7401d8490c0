"""Numbers that are none: a training that diverged leaves them in its weights."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from release.errors import UserError


def require_finite(tensors: Iterable[tuple[str, Tensor]], owner: str) -> None:
    """UserError, naming `owner` and the tensor, if one holds NaN or infinity."""
    name = first_not_finite(tensors)
    if name is not None:
        raise UserError(
            f"{owner}: its tensor {name} holds numbers that are not finite: its training diverged, "
            "or the file is damaged"
        )


def first_not_finite(tensors: Iterable[tuple[str, Tensor]]) -> str | None:
    """The name of the first tensor that holds NaN or infinity; one answer a device is waited for.

    Extremes carry NaN and infinity along, and finding them takes no second copy of the tensor.
    """
    named = [(name, t) for name, t in tensors if t.is_floating_point() and t.numel()]
    if not named:
        return None
    wrong = [~torch.stack(torch.aminmax(tensor.detach())).isfinite().all() for _, tensor in named]
    if not torch.stack([flag.to(wrong[0].device) for flag in wrong]).any():
        return None
    return next(name for (name, _), flag in zip(named, wrong, strict=True) if flag)


def tensors_in(content: Any, name: str = "") -> Iterator[tuple[str, Tensor]]:
    """All tensors in nested dictionaries and lists, each with its place, such as network.bias."""
    if isinstance(content, Tensor):
        yield name, content
    elif isinstance(content, Mapping | Sequence) and not isinstance(content, str):
        parts = content.items() if isinstance(content, Mapping) else enumerate(content)
        for key, part in parts:
            yield from tensors_in(part, f"{name}.{key}" if name else str(key))
