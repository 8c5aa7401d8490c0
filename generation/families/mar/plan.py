"""The shapes of MAR's networks, and the published ones. Imports no torch."""

from dataclasses import dataclass

KNOWN_HEADS = {768: 12}  # of the transformer, by width; all others have HEADS
HEADS = 16


@dataclass(frozen=True)
class MARPlan:
    """grid, channels: of the latents, a token each. classes: rows of its embedding, the null
    class's, the last, included. buffer: tokens that say the class. depth: blocks of the encoder,
    and of the decoder. denoiser_width, denoiser_depth: of the network that diffuses a token."""

    grid: int
    channels: int
    classes: int
    width: int
    depth: tuple[int, int]
    buffer: int
    denoiser_width: int
    denoiser_depth: int

    @property
    def tokens(self) -> int:
        """Of an image."""
        return self.grid**2

    @property
    def heads(self) -> int:
        """Of each block: no tensor says them."""
        return KNOWN_HEADS.get(self.width, HEADS)


def _published(width: int, depth: int, denoiser_width: int, denoiser_depth: int) -> MARPlan:
    return MARPlan(16, 16, 1001, width, (depth, depth), 64, denoiser_width, denoiser_depth)


PUBLISHED = {  # by file, as recipes name them
    "mar_base.pth": _published(768, 12, 1024, 6),
    "mar_large.pth": _published(1024, 16, 1280, 8),
    "mar_huge.pth": _published(1280, 20, 1536, 12),
}
