"""What an image takes of arithmetic, counted on torch's meta device: no weights are needed.

A multiplication and an addition are two operations, as torch's FlopCounterMode counts the products
of linear layers, convolutions and attention; what stands between them is not counted.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from generation.networks.gpus import Gpu, Precision


@dataclass(frozen=True)
class Work:
    """Floating-point operations of one image. evaluation: of one call of the network; decoding:
    once, of the latents. Each with the precision that it runs in on a GPU here.

    Texts are embedded once a prompt, not once an image, and are not in it.
    """

    evaluation: int
    decoding: int = 0
    precision: Precision = "half"
    decoded_in: Precision = "single"

    def seconds(self, evaluations: int, gpu: Gpu, utilisation: float) -> float:
        """Of the GPU, an image, at that share of its peaks."""
        sampled = gpu.seconds(evaluations * self.evaluation, self.precision, utilisation)
        return sampled + gpu.seconds(self.decoding, self.decoded_in, utilisation)


def counted_flops(run: Callable[[], object]) -> int:
    """Of `run`, whose tensors are on the meta device."""
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        run()
    return int(counter.get_total_flops())


def decoding_flops(autoencoder: type, shape: dict[str, Any], *latents: int) -> int:
    """Of one image: by diffusers' class of autoencoders and its config. latents: channels, side."""
    import torch

    channels, side = latents
    with torch.device("meta"):
        network: Any = autoencoder(**shape)
        return counted_flops(lambda: network.decode(torch.zeros(1, channels, side, side)))
