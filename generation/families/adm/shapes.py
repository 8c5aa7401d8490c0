"""The shape of OpenAI's U-Net, apart from torch so that a plan can be checked at once."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Heads:
    """count: heads at every width, or width: channels of each head; one of the two is given.

    legacy: rows of the qkv matrix go head by head, q, k, v within each; else q of all heads first.
    """

    count: int | None = None
    width: int | None = None
    legacy: bool = True

    def at(self, channels: int) -> int:
        """Heads of an attention layer of `channels`."""
        if self.count is not None:
            return self.count
        assert self.width is not None
        return channels // self.width


@dataclass(frozen=True)
class Shape:
    """What is read from a state dict: channels a level, finest first, and what stands there.

    context: width of what the transformer blocks look at, None where attention is to itself alone;
    depth: transformer blocks in a row. groups: of every norm, which no state dict tells.
    """

    in_channels: int
    out_channels: int
    widths: tuple[int, ...]
    attends: tuple[bool, ...]
    blocks: int
    resblock_updown: bool
    scale_shift: bool
    classes: int | None
    context: int | None
    depth: int
    groups: int = 32

    @property
    def side(self) -> int:
        """Of its images, in px: all of these networks end at 8 x 8."""
        return int(8 * 2 ** (len(self.widths) - 1))
