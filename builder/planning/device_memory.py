"""What a stage's networks take of a GPU's memory, from their shapes alone."""

from dataclasses import dataclass

from builder.planning.recipe import StageRecipe
from generation.families import work_of
from generation.networks.flops import SIZES

GIB = 1 << 30
ALLOCATED = 1.5  # of what was counted: allocators keep fragments, kernels want room to work in
COPIES = 4  # of a batch's images in float32, decoded, rounded or latents, beside the network's own


@dataclass(frozen=True)
class MemoryNeed:
    """Bytes, at once, of a batch that is sampled and of the one before, which is decoded meanwhile.

    fixed: weights, and decoding, which is done image by image; image: of each in a batch.

    ALLOCATED and COPIES are assumed, the rest is counted on the meta device.
    """

    fixed: int
    image: int

    def gib(self, batch: int) -> float:
        """Of so many images at once."""
        return (self.fixed + batch * self.image) / GIB

    def most(self, memory: float) -> int:
        """Images at once in so many bytes; 0 where the weights alone do not fit."""
        return max(0, int((memory - self.fixed) // self.image))

    def __str__(self) -> str:
        return f"{self.fixed / GIB:.2g} GiB, and {self.image / 2**20:.3g} MiB an image"


def memory_need(stage: StageRecipe) -> MemoryNeed | None:
    """None where the shape of one of its networks is not known."""
    works = [work_of(stage.generator, one, stage.resolution) for one in stage.checkpoints]
    own = works[0]
    if own is None or own.memory is None:
        return None
    size, memory = SIZES[own.precision] / SIZES["single"], own.memory
    decoded = SIZES[own.decoded_in] / SIZES["single"]
    fixed = (memory.decoder_weights + ALLOCATED * memory.decoder_activations) * decoded
    for work in works:
        if work is None or work.memory is None:
            return None
        fixed += work.memory.weights * size
    both = stage.guide is None and stage.sampler.guides  # halves in one call
    image = ALLOCATED * (1 + both) * memory.activations * size
    pixels = COPIES * 3 * stage.resolution**2 * SIZES["single"]
    return MemoryNeed(round(fixed), round(image) + pixels)
