"""OpenAI's U-Net as its papers and checkpoints describe it, for comparison with the converter.

Modules carry the checkpoints' names, so `state_dict()` is a checkpoint in the source layout.
"""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

FULL: dict[str, dict[str, Any]] = {
    "adm-64": {
        "width": 192,
        "mult": (1, 2, 3, 4),
        "blocks": 3,
        "attends": (False, True, True, True),
        "head_width": 64,
        "legacy": False,
    },
    "adm-256": {
        "width": 256,
        "mult": (1, 1, 2, 2, 4, 4),
        "blocks": 2,
        "attends": (False, False, False, True, True, True),
        "head_width": 64,
    },
    "adm-upsampler": {
        "width": 192,
        "mult": (1, 1, 2, 2, 4, 4),
        "blocks": 2,
        "attends": (False, False, False, True, True, True),
        "heads": 4,
        "in_channels": 6,
    },
    "iddpm": {
        "width": 192,
        "mult": (1, 2, 3, 4),
        "blocks": 3,
        "attends": (False, False, True, True),
        "heads": 4,
        "updown": False,
    },
}
TINY: dict[str, dict[str, Any]] = {
    name: {
        **spec,
        "width": 32 if "heads" in spec else 64,
        "mult": (1, 2, 3, 3) if name == "adm-upsampler" else (1, 3) if name != "iddpm" else (1, 2),
        "blocks": 1,
        "attends": (False, False, True, True) if name == "adm-upsampler" else (False, True),
        "classes": 10,
    }
    for name, spec in FULL.items()
}


class Residual(nn.Module):
    """BigGAN's residual block with the scale and shift of the paper's adaptive group norm."""

    def __init__(self, inside: int, outside: int, embedding: int, resample: str = "") -> None:
        super().__init__()
        self.resample = resample
        self.in_layers = nn.Sequential(
            nn.GroupNorm(32, inside), nn.SiLU(), nn.Conv2d(inside, outside, 3, padding=1)
        )
        self.emb_layers = nn.Sequential(nn.SiLU(), nn.Linear(embedding, 2 * outside))
        self.out_layers = nn.Sequential(
            nn.GroupNorm(32, outside),
            nn.SiLU(),
            nn.Dropout(0.0),
            nn.Conv2d(outside, outside, 3, padding=1),
        )
        same = inside == outside
        self.skip_connection = nn.Identity() if same else nn.Conv2d(inside, outside, 1)

    def resampled(self, x: Tensor) -> Tensor:
        if self.resample == "down":
            return F.avg_pool2d(x, 2)
        return x.repeat_interleave(2, 2).repeat_interleave(2, 3) if self.resample == "up" else x

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        h = self.in_layers[2](self.resampled(self.in_layers[:2](x)))
        scale, shift = self.emb_layers(emb)[:, :, None, None].chunk(2, dim=1)
        h = self.out_layers[1:](self.out_layers[0](h) * (1 + scale) + shift)
        return self.skip_connection(self.resampled(x)) + h


class Attention(nn.Module):
    """Self-attention, one matrix for q, k, v, its rows in one of the two published orders."""

    def __init__(self, channels: int, heads: int, legacy: bool) -> None:
        super().__init__()
        self.heads, self.legacy = heads, legacy
        self.norm = nn.GroupNorm(32, channels)
        self.qkv = nn.Conv1d(channels, 3 * channels, 1)
        self.proj_out = nn.Conv1d(channels, channels, 1)

    def forward(self, x: Tensor, _: Tensor) -> Tensor:
        n, c, height, width = x.shape
        flat = x.reshape(n, c, height * width)
        rows = self.qkv(self.norm(flat))
        d = c // self.heads
        out = []
        for head in range(self.heads):
            if self.legacy:
                starts = [3 * d * head + part * d for part in range(3)]
            else:
                starts = [part * c + d * head for part in range(3)]
            q, k, v = (rows[:, start : start + d] for start in starts)
            weight = torch.softmax(q.transpose(1, 2) @ k / math.sqrt(d), dim=-1)
            out.append((weight @ v.transpose(1, 2)).transpose(1, 2))
        return (flat + self.proj_out(torch.cat(out, dim=1))).reshape(x.shape)


class Down(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.op = nn.Conv2d(channels, channels, 3, stride=2, padding=1)

    def forward(self, x: Tensor, _: Tensor) -> Tensor:
        return self.op(x)


class Up(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor, _: Tensor) -> Tensor:
        return self.conv(x.repeat_interleave(2, 2).repeat_interleave(2, 3))


class OpenAIUNet(nn.Module):
    def __init__(
        self,
        width: int,
        mult: tuple[int, ...],
        blocks: int,
        attends: tuple[bool, ...],
        heads: int | None = None,
        head_width: int = 64,
        legacy: bool = True,
        updown: bool = True,
        in_channels: int = 3,
        classes: int = 1000,
    ) -> None:
        super().__init__()
        self.width, emb = width, 4 * width

        def attention(channels: int) -> Attention:
            return Attention(channels, heads or channels // head_width, legacy)

        self.time_embed = nn.Sequential(nn.Linear(width, emb), nn.SiLU(), nn.Linear(emb, emb))
        self.label_emb = nn.Embedding(classes, emb)
        self.input_blocks = nn.ModuleList(
            [nn.ModuleList([nn.Conv2d(in_channels, width, 3, padding=1)])]
        )
        skips, c = [width], width
        for level, m in enumerate(mult):
            for _ in range(blocks):
                layers: list[nn.Module] = [Residual(c, m * width, emb)]
                c = m * width
                if attends[level]:
                    layers.append(attention(c))
                self.input_blocks.append(nn.ModuleList(layers))
                skips.append(c)
            if level < len(mult) - 1:
                down = Residual(c, c, emb, "down") if updown else Down(c)
                self.input_blocks.append(nn.ModuleList([down]))
                skips.append(c)
        self.middle_block = nn.ModuleList([Residual(c, c, emb), attention(c), Residual(c, c, emb)])
        self.output_blocks = nn.ModuleList()
        for level in reversed(range(len(mult))):
            for i in range(blocks + 1):
                layers = [Residual(c + skips.pop(), mult[level] * width, emb)]
                c = mult[level] * width
                if attends[level]:
                    layers.append(attention(c))
                if level and i == blocks:
                    layers.append(Residual(c, c, emb, "up") if updown else Up(c))
                self.output_blocks.append(nn.ModuleList(layers))
        self.out = nn.Sequential(nn.GroupNorm(32, c), nn.SiLU(), nn.Conv2d(c, 6, 3, padding=1))

    def forward(self, x: Tensor, t: Tensor, y: Tensor) -> Tensor:
        half = self.width // 2
        angle = t[:, None] * torch.exp(-math.log(10000) * torch.arange(half) / half)[None]
        emb = self.time_embed(torch.cat([angle.cos(), angle.sin()], dim=1)) + self.label_emb(y)
        h, skips = self.input_blocks[0][0](x), []
        skips.append(h)
        for block in list(self.input_blocks)[1:]:
            for layer in block:
                h = layer(h, emb)
            skips.append(h)
        for layer in self.middle_block:
            h = layer(h, emb)
        for block in self.output_blocks:
            h = torch.cat([h, skips.pop()], dim=1)
            for layer in block:
                h = layer(h, emb)
        return self.out(h)


def tiny(name: str, **changes: Any) -> OpenAIUNet:
    """A tiny network of the family, random, the same every time; changes: to its TINY."""
    with torch.random.fork_rng():
        torch.manual_seed(7)
        network = OpenAIUNet(**TINY[name] | changes).eval()
        for parameter in network.parameters():
            parameter.data += 0.05 * torch.randn_like(parameter)
    return network
