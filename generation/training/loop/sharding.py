"""A module's weights shared out over all processes (FSDP2), and whole again where they are saved.

What is saved holds whole tensors, by the names they have on one process: any number of processes
goes on with it.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor


def all_processes(device: torch.device) -> DeviceMesh:
    """As one line of processes, each with a shard of everything."""
    return init_device_mesh(device.type, (torch.distributed.get_world_size(),))


def shard(module: nn.Module, mesh: DeviceMesh) -> None:
    """Keep a shard of each weight, in place: block after block is gathered when it is computed.

    A convolution's weights must be contiguous, not channels last.
    """
    for block in blocks(module):
        fully_shard(block, mesh=mesh)
    fully_shard(module, mesh=mesh)


def blocks(module: nn.Module) -> list[nn.Module]:
    """What stands in the outermost lists of modules, as those of a U-Net or a transformer."""
    found: list[nn.Module] = []
    for child in module.children():
        found += [*child] if isinstance(child, nn.ModuleList) else blocks(child)
    return found


def sum_here(module: nn.Module, *, here: bool) -> None:
    """Whether each process adds up its own gradients, and shares them later."""
    assert isinstance(module, FSDPModule)
    module.set_requires_gradient_sync(not here)


def whole(content: Any, *, keep: bool) -> Any:
    """`content` with copies of its tensors on the CPU, whole where they were shards.

    All processes must call it, with the same content; where `keep` is False it gives none.
    """
    if isinstance(content, Mapping):
        return {name: whole(value, keep=keep) for name, value in content.items()}
    if isinstance(content, list | tuple):
        return type(content)(whole(value, keep=keep) for value in content)
    if not isinstance(content, Tensor):
        return content
    tensor = content.detach()
    if isinstance(tensor, DTensor):
        tensor = tensor.full_tensor()
    return tensor.to("cpu", copy=True) if keep else None


def load_module(module: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Of whole tensors each process takes its shards; what torch raises if they do not fit."""
    own = module.state_dict()
    module.load_state_dict({name: _like(own.get(name), tensor) for name, tensor in weights.items()})


def load_optimizer(optimizer: torch.optim.Optimizer, content: Mapping[str, Any]) -> None:
    """As load_module, of what the optimizer keeps of each weight."""
    weights = [weight for group in optimizer.param_groups for weight in group["params"]]
    state = {
        number: {name: _like(weights[number], value) for name, value in kept.items()}
        for number, kept in content["state"].items()
    }
    optimizer.load_state_dict({**content, "state": state})


def _like(own: Tensor | None, value: Any) -> Any:
    """The shard of `value` that goes with `own`, if that is one and `value` has its shape."""
    if not isinstance(own, DTensor) or not isinstance(value, Tensor) or value.shape != own.shape:
        return value
    return distribute_tensor(
        value.to(own.device), own.device_mesh, own.placements, src_data_rank=None
    )
