"""On CPU processes a network adds up in one order, whether its weights are shared out or not.

FSDP2 hands each block its inputs through one node of the backward pass, so what a block finds for
an input that it uses several times is added up within the block first; and it adds up the norm of a
gradient shard by shard. With the same done here, two processes train to the same bits both ways.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.utils._pytree import tree_flatten, tree_unflatten

from generation.training.loop.sharding import blocks


def add_up_by_block(module: nn.Module) -> None:
    """Of a module whose weights are whole, as `sharding.shard` would; in place."""
    for part in (*blocks(module), module):
        part.register_forward_pre_hook(_through_one_node, with_kwargs=True)


def clip_norm(weights: Sequence[nn.Parameter], limit: float) -> None:
    """As clip_grad_norm_, the norm in double precision: however it is added up, it rounds alike."""
    gradients = [weight.grad for weight in weights if weight.grad is not None]
    local = [own.to_local() if isinstance(own, DTensor) else own for own in gradients]
    square = torch.stack([own.double().square().sum() for own in local]).sum()
    if any(isinstance(own, DTensor) for own in gradients):
        torch.distributed.all_reduce(square)
    share = (limit / (square.sqrt() + 1e-6)).clamp(max=1.0).float()
    for own in local:
        own.mul_(share)


class _Unchanged(torch.autograd.Function):
    @staticmethod
    def forward(_: Any, *inputs: Tensor) -> tuple[Tensor, ...]:
        return inputs

    @staticmethod
    def backward(_: Any, *gradients: Tensor) -> tuple[Tensor, ...]:
        return gradients


def _through_one_node(
    _: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
    """The inputs of a call, those with a gradient by way of one node; None where none has one."""
    flat, shape = tree_flatten((args, kwargs))
    places = [i for i, own in enumerate(flat) if isinstance(own, Tensor) and own.requires_grad]
    if not places or not torch.is_grad_enabled():
        return None
    given: Any = _Unchanged.apply(*(flat[i] for i in places))  # type: ignore[no-untyped-call]
    for place, own in zip(places, given, strict=True):
        flat[place] = own
    found: tuple[tuple[Any, ...], dict[str, Any]] = tree_unflatten(flat, shape)
    return found
