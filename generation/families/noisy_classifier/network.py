"""The classifier of ADM-G (Dhariwal & Nichol 2021, section 4.2 and appendix G): the half of ADM's
U-Net that goes down, its middle, and attention that pools the last feature maps.

Pooling (as of CLIP, Radford et al. 2021): the mean of the maps is one token more, each token has a
learned place, and what the mean's token attends to is said.
"""

from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from generation.denoisers.network import Denoiser, nearest_step
from generation.denoisers.recipe import DenoiserConfig
from generation.diffusion.schedule import NoiseSchedule
from generation.families.noisy_classifier.recipe import EncoderShape
from generation.networks.blocks import (
    LEVEL_SCALE,
    LevelEmbedding,
    group_norm,
    on_images,
)
from generation.networks.unet import Block, Level, Resampling, UNetPlan

EMBEDDING = 4  # times the base channels


class NoisyClassifier(Denoiser):
    """Says logits of the classes, in the place of a denoiser's prediction."""

    def __init__(self, config: DenoiserConfig) -> None:
        super().__init__(config)
        shape: EncoderShape = config.network
        self.schedule = NoiseSchedule(config.stage.schedule)
        self.embedding = LevelEmbedding(shape.base_channels, EMBEDDING * shape.base_channels)
        self.body = Encoder(shape, config)
        side = config.stage.resolution >> (len(shape.multipliers) - 1)
        width = shape.base_channels * shape.multipliers[-1]
        self.pool = AttentionPool(side, width, shape.head_width, len(config.classes) - 1)

    def predict(
        self,
        x: Tensor,
        log_snr: Tensor,
        condition: Tensor,  # noqa: ARG002 - it is to find out
        parent: Tensor | None,
        carried: Tensor | None,
    ) -> tuple[Tensor, None]:
        """float[N,K], K classes; it carries nothing."""
        assert parent is None
        assert carried is None
        step = nearest_step(self.schedule, log_snr)
        logits: Tensor = self.pool(self.body(x, self.embedding(step / LEVEL_SCALE)))
        return logits, None


class Encoder(nn.Module):
    """x float[N,C,H,W], h float[N,D] => float[N,W,H',W'], the last level's feature maps."""

    def __init__(self, shape: EncoderShape, config: DenoiserConfig) -> None:
        super().__init__()
        plan = _plan(shape, config)
        self.enter = nn.Conv2d(plan.enter, plan.base, 3, padding=1)
        layers: list[nn.Module] = []
        width = plan.base
        for number, level in enumerate(plan.levels, 1):
            own = replace(plan, heads=level.channels // shape.head_width)
            for _ in range(level.blocks):
                layers.append(Block(width, level, own))
                width = level.channels
            if number < len(plan.levels):
                layers.append(Resampling(-1, level, own))
        self.layers = nn.ModuleList(layers)
        self.middle = nn.ModuleList(plan.block(width, width, shape.dropout) for _ in range(2))
        self.attention = replace(plan, heads=width // shape.head_width).attention(width)
        self.norm = group_norm(width, plan.groups)

    def forward(self, x: Tensor, h: Tensor) -> Tensor:
        y: Tensor = self.enter(x)
        for layer in self.layers:
            y = layer(y, h)
        first, second = self.middle
        y = second(on_images(self.attention, first(y, h)), h)
        return F.silu(self.norm(y))


class AttentionPool(nn.Module):
    """float[N,C,side,side] => float[N,leave]."""

    def __init__(self, side: int, channels: int, head_width: int, leave: int) -> None:
        super().__init__()
        self.heads = channels // head_width
        self.places = nn.Parameter(torch.randn(side**2 + 1, channels) / channels**0.5)
        self.qkv = nn.Linear(channels, 3 * channels)
        self.out = nn.Linear(channels, leave)

    def forward(self, x: Tensor) -> Tensor:
        tokens = x.flatten(2).transpose(1, 2)
        tokens = torch.cat([tokens.mean(dim=1, keepdim=True), tokens], dim=1) + self.places
        split = self.qkv(tokens).unflatten(2, (3, self.heads, -1))  # N, T, 3, heads, width
        query, key, value = split.permute(2, 0, 3, 1, 4)
        found = F.scaled_dot_product_attention(query[:, :, :1], key, value)
        out: Tensor = self.out(found.transpose(1, 2).flatten(1))
        return out


def _plan(shape: EncoderShape, config: DenoiserConfig) -> UNetPlan:
    levels = [
        Level(
            shape.base_channels * multiplier,
            shape.blocks,
            config.stage.resolution >> number in shape.attention,
            shape.dropout,
        )
        for number, multiplier in enumerate(shape.multipliers)
    ]
    return UNetPlan(
        levels,
        enter=config.channels,
        leave=0,  # it has no way up
        base=shape.base_channels,
        embedding=EMBEDDING * shape.base_channels,
        heads=1,  # each level has its own
        groups=shape.groups,
        middle_dropout=shape.dropout,
        in_blocks=True,
    )
