"""The shape of an EDM2 network, read from its tensors' names and shapes. Imports no torch."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError, safe_open

from release.errors import UserError

HEAD_WIDTH = 64  # channels of each attention head
SIZES = {"xs": 128, "s": 192, "m": 256, "l": 320, "xl": 384, "xxl": 448}  # channels, published
FACTOR = 8  # pixels a side of a latent
LATENT_CHANNELS = 4

Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class EDM2Plan:
    """side, channels: of what the network sees, images or latents. widths: channels of each level,
    finest first. blocks: of each level on the way down; one more on the way up. attends: sides of
    the levels with attention. classes: 0 of an unconditional network. head: channels of each
    attention head. noise: of the noise level's waves; embedding: of noise and class together."""

    side: int
    channels: int
    widths: tuple[int, ...]
    blocks: int
    attends: tuple[int, ...]
    classes: int
    noise: int
    embedding: int
    head: int = HEAD_WIDTH

    @property
    def resolution(self) -> int:
        """Of its images, in px."""
        return self.side * (FACTOR if self.channels == LATENT_CHANNELS else 1)


def published_plan(resolution: int, size: str, classes: int) -> EDM2Plan:
    """Of ImageNet at 64 px, on pixels, or at 512 px, on latents; KeyError for another size."""
    width = SIZES[size]
    channels = LATENT_CHANNELS if resolution == 512 else 3
    widths = tuple(width * multiple for multiple in (1, 2, 3, 4))
    return EDM2Plan(64, channels, widths, 3, (16, 8), classes, width, widths[-1])


def plan_in(shapes: Shapes, name: str, head: int = HEAD_WIDTH) -> EDM2Plan:
    """By the authors' keys; UserError if they are of another network."""
    try:
        (first,) = (key for key in shapes if key.startswith("unet.enc.") and "_conv." in key)
        side = int(first.removeprefix("unet.enc.").partition("x")[0])
        width, seen, _, _ = shapes[first]
        embedding, noise = shapes["unet.emb_noise.weight"]
        sides = _sides(shapes, side)
        widths = [width, *(shapes[f"{_block(s, 0)}.conv_res0.weight"][0] for s in sides[1:])]
        blocks = _count(lambda i: f"{_block(side, i)}.emb_gain" in shapes)
        attends = tuple(s for s in sides if f"{_block(s, 0)}.attn_qkv.weight" in shapes)
        classes = shapes.get("unet.emb_label.weight", (0, 0))[1]
    except (KeyError, ValueError, IndexError) as error:
        raise UserError(f"{name} is no EDM2 in its authors' layout: {error}") from None
    return EDM2Plan(side, seen - 1, tuple(widths), blocks, attends, classes, noise, embedding, head)


def plan_of(file: Path) -> EDM2Plan:
    """Of a .safetensors file, from its header alone; UserError for any other."""
    try:
        with safe_open(file, "numpy") as content:
            keys = list(content.keys())
            shapes = {key: tuple(content.get_slice(key).get_shape()) for key in keys}
    except (OSError, SafetensorError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(f"{file} is no .safetensors file: {reason}") from None
    return plan_in(shapes, str(file))


def _block(side: int, number: int) -> str:
    return f"unet.enc.{side}x{side}_block{number}"


def _sides(shapes: Shapes, side: int) -> list[int]:
    """Of each level, finest first."""
    depth = _count(lambda i: f"{_block(side >> i, 0)}.emb_gain" in shapes)
    return [side >> level for level in range(depth)]


def _count(there: Callable[[int], bool]) -> int:
    number = 0
    while there(number):
        number += 1
    return number
