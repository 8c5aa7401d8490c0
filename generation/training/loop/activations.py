"""Gradient checkpointing: what is within a block is computed again for the backward pass."""

from torch import nn

from release.errors import UserError

SWITCHES = ("enable_gradient_checkpointing", "set_grad_checkpointing")  # of diffusers, of timm


def keep_block_inputs_alone(module: nn.Module) -> None:
    """Switch it on wherever the module's parts have a switch for it; UserError if none has."""
    found = False
    for part in module.modules():
        for name in SWITCHES:
            switch = getattr(part, name, None)
            if switch is not None:
                switch()
                found = True
    if not found:
        raise UserError(
            f"gradient_checkpointing: no part of {type(module).__name__} has it; leave it out"
        )
