"""OpenAI's networks by name: what a checkpoint's tensors do not tell, and the published shapes."""

from dataclasses import dataclass

from generation.diffusion.schedule import ScheduleConfig
from generation.families.adm.shapes import Heads, Shape


@dataclass(frozen=True)
class Network:
    """What a checkpoint's tensors do not tell. enlarges: the stage has parents.

    published: the shape of the ImageNet checkpoint of that name, to plan with without its file.
    """

    heads: Heads
    schedule: ScheduleConfig
    published: Shape
    enlarges: bool = False


def _shape(
    widths: tuple[int, ...], attends: int, blocks: int, *, updown: bool = True, inputs: int = 3
) -> Shape:
    """attends: so many of the coarsest levels."""
    return Shape(
        in_channels=inputs,
        out_channels=6,
        widths=widths,
        attends=tuple(level >= len(widths) - attends for level in range(len(widths))),
        blocks=blocks,
        resblock_updown=updown,
        scale_shift=True,
        classes=1000,
        context=None,
        depth=0,
    )


LINEAR = ScheduleConfig(name="linear", num_steps=1000, beta_start=1e-4, beta_end=0.02)
COSINE = ScheduleConfig(name="cosine", num_steps=1000)
LARGE = (1, 1, 2, 2, 4, 4)
NETWORKS = {
    # Dhariwal & Nichol 2021, table 11: heads of 64 channels; q, k, v in the new order at 64 px
    # alone. adm-256 also reads the 512 px checkpoint.
    "adm-64": Network(
        Heads(width=64, legacy=False), COSINE, _shape((192, 384, 576, 768), attends=3, blocks=3)
    ),
    "adm-256": Network(
        Heads(width=64), LINEAR, _shape(tuple(256 * m for m in LARGE), attends=3, blocks=2)
    ),
    "adm-upsampler": Network(
        Heads(count=4),
        LINEAR,
        _shape(tuple(192 * m for m in LARGE), attends=3, blocks=2, inputs=6),
        enlarges=True,
    ),
    # Nichol & Dhariwal 2021
    "iddpm": Network(
        Heads(count=4),
        ScheduleConfig(name="cosine", num_steps=4000),
        _shape((192, 384, 576, 768), attends=2, blocks=3, updown=False),
    ),
}
