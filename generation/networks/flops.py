"""What an image takes of arithmetic, counted on torch's meta device: no weights are needed.

A multiplication and an addition are two operations, as torch's FlopCounterMode counts the products
of linear layers, convolutions and attention; what stands between them is not counted.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from generation.networks.gpus import Gpu, Precision

SIZES: dict[Precision, int] = {"fp8": 1, "half": 2, "single": 4}  # bytes of a number


@dataclass(frozen=True)
class Memory:
    """Bytes as if all were float32 (generation/networks/peak_memory.py). weights: of the network,
    activations: of one call of it for one image, at their peak; so of the decoder."""

    weights: int
    activations: int
    decoder_weights: int = 0
    decoder_activations: int = 0


@dataclass(frozen=True)
class Work:
    """Floating-point operations of one image. evaluation: of one call of the network; decoding:
    once, of the latents. Each with the precision that it runs in on a GPU here. memory: what that
    takes, where it was counted, too. for_fp8: of `evaluation`, in the layers that may run in fp8;
    in_fp8: whether they do.

    Texts are embedded once a prompt, not once an image, and are not in it.
    """

    evaluation: int
    decoding: int = 0
    precision: Precision = "half"
    decoded_in: Precision = "single"
    memory: Memory | None = None
    for_fp8: int = 0
    in_fp8: bool = False

    @classmethod
    def read(cls, content: dict[str, Any]) -> "Work":
        """Of what `as_json` gives."""
        memory = content.get("memory")
        return cls(**content | {"memory": memory and Memory(**memory)})

    def as_json(self) -> dict[str, Any]:
        """For a file, which does not name what came later where it is not set."""
        later = ("for_fp8", "in_fp8")
        return {n: value for n, value in asdict(self).items() if value or n not in later}

    def seconds(self, evaluations: int, gpu: Gpu, utilisation: float) -> float:
        """Of the GPU, an image, at that share of its peaks."""
        in_fp8 = self.for_fp8 if self.in_fp8 else 0
        rest = evaluations * (self.evaluation - in_fp8)
        sampled = gpu.seconds(rest, self.precision, utilisation)
        if in_fp8:
            sampled += gpu.seconds(evaluations * in_fp8, "fp8", utilisation)
        return sampled + gpu.seconds(self.decoding, self.decoded_in, utilisation)


def counted_flops(run: Callable[[], object], *, decoding: bool = False) -> int:
    """Of `run`, whose tensors are on the meta device. decoding: it decodes latents."""
    from torch.utils.flop_counter import FlopCounterMode

    from generation.networks.peak_memory import peak_noted

    with peak_noted(decoding=decoding), FlopCounterMode(display=False) as counter:
        run()
    return int(counter.get_total_flops())


def decoding_flops(autoencoder: type, shape: dict[str, Any], *latents: int) -> int:
    """Of one image: by diffusers' class of autoencoders and its config. latents: channels, side."""
    import torch

    channels, side = latents
    with torch.device("meta"):
        network: Any = autoencoder(**shape)
        latent = torch.zeros(1, channels, side, side)
        return counted_flops(lambda: network.decode(latent), decoding=True)
