"""Linear layers of a transformer's blocks in fp8: whether that can be here, and doing it.

Weights are rounded to float8_e4m3 when they are loaded, with a scale for each of their rows, and so
is each token at each call. So an image depends on no other of its batch, which a scale for a whole
tensor would not leave so. Everything else stays in bfloat16: embeddings, modulation, the output.

The product is torch's own. torchao, which calls it too, would be one more package that decides
pixels, and leaves out layers that it cannot take without saying so.

To import it is to import no torch.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from release.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor, nn

CAPABILITY = (8, 9)  # of the GPUs that multiply in fp8: Ada, Hopper, Blackwell
BLOCKS = ("transformer_blocks.", "single_transformer_blocks.")  # of diffusers' transformers


def fp8_problem() -> str | None:
    """Why networks cannot run in fp8 in this process; None where they can."""
    import torch

    needed = f"needs a GPU of compute capability {CAPABILITY[0]}.{CAPABILITY[1]} or more"
    if not torch.cuda.is_available():
        return f"{needed}, of which there is none here"
    for index in range(torch.cuda.device_count()):
        major, minor = torch.cuda.get_device_capability(index)
        if (major, minor) < CAPABILITY:
            return f"{needed}; {torch.cuda.get_device_name(index)} has {major}.{minor}"
    return None


def fp8_layers(network: "nn.Module") -> "dict[str, nn.Linear]":
    """Those that run in fp8, by name."""
    from torch import nn

    return {
        name: layer
        for name, layer in network.named_modules()
        if isinstance(layer, nn.Linear) and name.startswith(BLOCKS)
    }


@contextmanager
def counted_in_fp8(network: "nn.Module") -> Iterator[list[int]]:
    """Floating-point operations, in the list's one number, of what calls within do in these
    layers."""
    count = [0]

    def note(layer: "nn.Linear", inputs: "tuple[Tensor, ...]", _: "Tensor") -> None:
        count[0] += 2 * inputs[0].numel() * layer.out_features

    hooks = [layer.register_forward_hook(note) for layer in fp8_layers(network).values()]
    try:
        yield count
    finally:
        for hook in hooks:
            hook.remove()


def run_in_fp8(network: "nn.Module") -> None:
    """From now on its blocks' linear layers, which are in bfloat16, multiply in fp8.

    UserError for a network that has none.
    """
    from generation.networks.fp8.linear import Fp8Linear

    layers = fp8_layers(network)
    if not layers:
        raise UserError(
            f"{type(network).__name__} has no transformer blocks that could run in fp8: leave "
            "precision out"
        )
    for name, layer in layers.items():
        parent, _, own = name.rpartition(".")
        setattr(network.get_submodule(parent), own, Fp8Linear(layer))
