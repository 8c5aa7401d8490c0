"""The shapes of VAR's two networks, and the published ones. Imports no torch."""

from dataclasses import dataclass

SCALES_256 = (1, 2, 3, 4, 5, 6, 8, 10, 13, 16)
SCALES_512 = (1, 2, 3, 4, 6, 9, 13, 18, 24, 32)
HEAD_WIDTH = 64
DEPTHS = {256: (16, 20, 24, 30), 512: (36,)}  # published, by resolution


@dataclass(frozen=True)
class VARPlan:
    """scales: sides of the maps of codes, coarse to fine. classes: the null one, the last, too.
    codes, code_width: size of the codebook and of a code's vector. hidden: of the MLPs. shared:
    whether one layer modulates all blocks."""

    scales: tuple[int, ...]
    classes: int
    width: int
    depth: int
    heads: int
    hidden: int
    codes: int
    code_width: int
    shared: bool = False

    @property
    def tokens(self) -> int:
        """Of an image, all scales together."""
        return sum(side**2 for side in self.scales)


@dataclass(frozen=True)
class DecoderPlan:
    """widths: channels of each level of the decoder, finest first. blocks: of each level. mixers:
    convolutions that codes pass after enlarging, shared among the scales."""

    code_width: int
    codes: int
    widths: tuple[int, ...]
    blocks: int = 3
    mixers: int = 4

    @property
    def factor(self) -> int:
        """Pixels a side of a code of the finest map."""
        return int(2 ** (len(self.widths) - 1))


PUBLISHED_DECODER = DecoderPlan(32, 4096, (160, 160, 320, 320, 640))


def published_plan(depth: int, resolution: int) -> VARPlan:
    """Of ImageNet: width and heads follow from the depth."""
    width = HEAD_WIDTH * depth
    return VARPlan(
        scales=SCALES_256 if resolution == 256 else SCALES_512,
        classes=1001,
        width=width,
        depth=depth,
        heads=depth,
        hidden=4 * width,
        codes=PUBLISHED_DECODER.codes,
        code_width=PUBLISHED_DECODER.code_width,
        shared=resolution == 512,
    )
