"""Converted tensors into a network: none missing, none left over."""

from typing import Any

from torch import Tensor

from release.errors import UserError


def load_exactly(network: Any, found: dict[str, Tensor], left: set[str], name: str) -> Any:
    """`network`, which is on the meta device, with its tensors; UserError names any odd key."""
    wanted = network.state_dict()
    missing = sorted(set(wanted) - set(found))
    surplus = sorted(left) + sorted(set(found) - set(wanted))
    if missing or surplus:
        what = f"lacks {missing[0]}" if missing else f"has {surplus[0]}, which is not known"
        raise UserError(f"{name} does not fit its generator: it {what}")
    for key, value in wanted.items():
        if value.shape != found[key].shape:
            raise UserError(
                f"{name} does not fit its generator: {key} is {tuple(found[key].shape)}, "
                f"not {tuple(value.shape)}"
            )
    network.load_state_dict({k: v.float() for k, v in found.items()}, assign=True)
    return network.eval().requires_grad_(False)
