"""What a network's forward pass holds at once, counted on torch's meta device, without weights."""

import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

QKV = ("query", "key", "value")  # attention's arguments


@dataclass(frozen=True)
class Peak:
    """Bytes of a forward pass as it was counted, in float32. weights: those it read, its inputs
    included. activations: what it made, at most at once. decoding: of latents, not of a step."""

    weights: int
    activations: int
    decoding: bool = False


_noted: ContextVar[list[Peak] | None] = ContextVar("noted", default=None)


@contextmanager
def noted_peaks() -> Iterator[list[Peak]]:
    """Within, `peak_noted` leaves what it finds in the list."""
    peaks: list[Peak] = []
    token = _noted.set(peaks)
    try:
        yield peaks
    finally:
        _noted.reset(token)


@contextmanager
def peak_noted(*, decoding: bool) -> Iterator[None]:
    """Count what is done within, where somebody asked for it."""
    peaks = _noted.get()
    if peaks is None:
        yield
        return
    with torch.no_grad(), FusedAttention(), _LiveTensors() as live:
        yield
    peaks.append(Peak(sum(one.nbytes() for one in live.given.values()), live.peak, decoding))


class _LiveTensors(TorchDispatchMode):
    """given: what was there before, held so that its address stays its own; peak: bytes of what was
    made meanwhile."""

    def __init__(self) -> None:
        super().__init__()
        self.given: dict[int, torch.UntypedStorage] = {}
        self.peak = 0
        self._made: dict[int, int] = {}
        self._held = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        for tensor in _tensors((args, kwargs)):
            storage = tensor.untyped_storage()
            if storage._cdata not in self._made:
                self.given[storage._cdata] = storage
        out = func(*args, **(kwargs or {}))
        for tensor in _tensors(out):
            self._note(tensor.untyped_storage())
        self.peak = max(self.peak, self._held)
        return out

    def _note(self, storage: torch.UntypedStorage) -> None:
        key = storage._cdata
        if key not in self._made and key not in self.given:
            self._made[key] = storage.nbytes()
            self._held += storage.nbytes()
            weakref.finalize(storage, self._forget, key)

    def _forget(self, key: int) -> None:
        self._held -= self._made.pop(key)


class FusedAttention(TorchFunctionMode):
    """Attention on the meta device as a CPU and a GPU compute it, without the matrix of weights,
    which the meta device left to itself makes."""

    def __torch_function__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        named = kwargs or {}
        if func is F.scaled_dot_product_attention:
            query, key, value = (*args, *(named[n] for n in QKV[len(args) :]))[:3]
            if query.is_meta and query.ndim == 4:
                return torch.ops.aten._scaled_dot_product_flash_attention(query, key, value)[0]
        return func(*args, **named)


def _tensors(tree: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]
