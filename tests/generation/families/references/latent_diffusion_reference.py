"""Latent diffusion as its paper describes it (Rombach et al. 2022), to compare the converter with.

Modules carry the names of the authors' checkpoints, so `checkpoint` is a file in the source layout.
"""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.generation.families.references.openai_reference import Down, Up

# cin256-v2 as published: widths 192 to 960, one head, a class token of 512.
FULL: dict[str, Any] = {
    "width": 192,
    "mult": (1, 2, 3, 5),
    "blocks": 2,
    "attends": (False, True, True, True),
    "context": 512,
}
FULL_VQ: dict[str, Any] = {"width": 128, "mult": (1, 2, 4), "blocks": 2, "codes": 8192}
TINY: dict[str, Any] = {
    "width": 32,
    "mult": (1, 3),
    "blocks": 1,
    "attends": (False, True),
    "context": 24,
}
TINY_VQ: dict[str, Any] = {"width": 32, "mult": (1, 2), "blocks": 1, "codes": 40}
CLASSES = 3


class Residual(nn.Module):
    """The time embedding is added between the two convolutions."""

    def __init__(self, inside: int, outside: int, embedding: int) -> None:
        super().__init__()
        self.in_layers = nn.Sequential(
            nn.GroupNorm(32, inside), nn.SiLU(), nn.Conv2d(inside, outside, 3, padding=1)
        )
        self.emb_layers = nn.Sequential(nn.SiLU(), nn.Linear(embedding, outside))
        self.out_layers = nn.Sequential(
            nn.GroupNorm(32, outside),
            nn.SiLU(),
            nn.Dropout(0.0),
            nn.Conv2d(outside, outside, 3, padding=1),
        )
        same = inside == outside
        self.skip_connection = nn.Identity() if same else nn.Conv2d(inside, outside, 1)

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        h = self.in_layers(x) + self.emb_layers(emb)[:, :, None, None]
        return self.skip_connection(x) + self.out_layers(h)


class CrossAttention(nn.Module):
    """softmax(Q K^T / sqrt(d)) V, section 3.3; projections without bias but the last."""

    def __init__(self, channels: int, context: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.to_q = nn.Linear(channels, channels, bias=False)
        self.to_k = nn.Linear(context, channels, bias=False)
        self.to_v = nn.Linear(context, channels, bias=False)
        self.to_out = nn.Sequential(nn.Linear(channels, channels), nn.Dropout(0.0))

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        q, k, v = self.to_q(x), self.to_k(context), self.to_v(context)
        d = q.shape[2] // self.heads
        out = []
        for head in range(self.heads):
            own = slice(head * d, (head + 1) * d)
            scores = q[:, :, own] @ k[:, :, own].transpose(1, 2) / math.sqrt(d)
            out.append(torch.softmax(scores, dim=-1) @ v[:, :, own])
        return self.to_out(torch.cat(out, dim=2))


class GEGLU(nn.Module):
    def __init__(self, inside: int, outside: int) -> None:
        super().__init__()
        self.proj = nn.Linear(inside, 2 * outside)

    def forward(self, x: Tensor) -> Tensor:
        value, gate = self.proj(x).chunk(2, dim=-1)
        return value * F.gelu(gate)


class FeedForward(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        inner = 4 * channels
        self.net = nn.Sequential(
            GEGLU(channels, inner), nn.Dropout(0.0), nn.Linear(inner, channels)
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)


class Block(nn.Module):
    """Table 16 of the paper: self-attention, a multilayer perceptron, cross-attention."""

    def __init__(self, channels: int, context: int, heads: int) -> None:
        super().__init__()
        self.attn1 = CrossAttention(channels, channels, heads)
        self.ff = FeedForward(channels)
        self.attn2 = CrossAttention(channels, context, heads)
        self.norm1, self.norm2, self.norm3 = (nn.LayerNorm(channels) for _ in range(3))

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        normed = self.norm1(x)
        x = x + self.attn1(normed, normed)
        x = x + self.attn2(self.norm2(x), context)
        return x + self.ff(self.norm3(x))


class SpatialTransformer(nn.Module):
    def __init__(self, channels: int, context: int, heads: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(32, channels, eps=1e-6)
        self.proj_in = nn.Conv2d(channels, channels, 1)
        self.transformer_blocks = nn.ModuleList([Block(channels, context, heads)])
        self.proj_out = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        h = self.proj_in(self.norm(x))
        tokens = h.flatten(2).transpose(1, 2)
        for block in self.transformer_blocks:
            tokens = block(tokens, context)
        return x + self.proj_out(tokens.transpose(1, 2).reshape(h.shape))


class UNet(nn.Module):
    def __init__(
        self,
        width: int,
        mult: tuple[int, ...],
        blocks: int,
        attends: tuple[bool, ...],
        context: int,
        heads: int = 1,
    ) -> None:
        super().__init__()
        self.width, emb = width, 4 * width

        def attention(channels: int) -> SpatialTransformer:
            return SpatialTransformer(channels, context, heads)

        self.time_embed = nn.Sequential(nn.Linear(width, emb), nn.SiLU(), nn.Linear(emb, emb))
        self.input_blocks = nn.ModuleList([nn.ModuleList([nn.Conv2d(3, width, 3, padding=1)])])
        skips, c = [width], width
        for level, m in enumerate(mult):
            for _ in range(blocks):
                layers: list[nn.Module] = [Residual(c, m * width, emb)]
                c = m * width
                layers += [attention(c)] if attends[level] else []
                self.input_blocks.append(nn.ModuleList(layers))
                skips.append(c)
            if level < len(mult) - 1:
                self.input_blocks.append(nn.ModuleList([Down(c)]))
                skips.append(c)
        self.middle_block = nn.ModuleList([Residual(c, c, emb), attention(c), Residual(c, c, emb)])
        self.output_blocks = nn.ModuleList()
        for level in reversed(range(len(mult))):
            for i in range(blocks + 1):
                layers = [Residual(c + skips.pop(), mult[level] * width, emb)]
                c = mult[level] * width
                layers += [attention(c)] if attends[level] else []
                layers += [Up(c)] if level and i == blocks else []
                self.output_blocks.append(nn.ModuleList(layers))
        self.out = nn.Sequential(nn.GroupNorm(32, c), nn.SiLU(), nn.Conv2d(c, 3, 3, padding=1))

    def forward(self, x: Tensor, t: Tensor, context: Tensor) -> Tensor:
        half = self.width // 2
        angle = t[:, None] * torch.exp(-math.log(10000) * torch.arange(half) / half)[None]
        emb = self.time_embed(torch.cat([angle.cos(), angle.sin()], dim=1))

        def run(layers: nn.Module, h: Tensor) -> Tensor:
            for layer in layers.children():
                h = layer(h, context if isinstance(layer, SpatialTransformer) else emb)
            return h

        h = self.input_blocks[0][0](x)
        skips = [h]
        for block in list(self.input_blocks)[1:]:
            h = run(block, h)
            skips.append(h)
        h = run(self.middle_block, h)
        for block in self.output_blocks:
            h = run(block, torch.cat([h, skips.pop()], dim=1))
        return self.out(h)


# ---------------------------------------------------------------- the autoencoder


def norm(channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(32, channels, eps=1e-6)


class PlainResidual(nn.Module):
    def __init__(self, inside: int, outside: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = norm(inside), norm(outside)
        self.conv1 = nn.Conv2d(inside, outside, 3, padding=1)
        self.conv2 = nn.Conv2d(outside, outside, 3, padding=1)
        if inside != outside:
            self.nin_shortcut = nn.Conv2d(inside, outside, 1)

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv1(F.silu(self.norm1(x)))
        h = self.conv2(F.silu(self.norm2(h)))
        return h + (self.nin_shortcut(x) if hasattr(self, "nin_shortcut") else x)


class PlainAttention(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = norm(channels)
        self.q, self.k, self.v, self.proj_out = (nn.Conv2d(channels, channels, 1) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        h = self.norm(x)
        q, k, v = (layer(h).flatten(2) for layer in (self.q, self.k, self.v))
        weight = torch.softmax(q.transpose(1, 2) @ k / math.sqrt(q.shape[1]), dim=2)
        return x + self.proj_out((v @ weight.transpose(1, 2)).reshape(x.shape))


def middle(channels: int, attends: bool) -> nn.ModuleDict:
    parts: dict[str, nn.Module] = {"block_1": PlainResidual(channels, channels)}
    if attends:
        parts["attn_1"] = PlainAttention(channels)
    return nn.ModuleDict({**parts, "block_2": PlainResidual(channels, channels)})


class Shrink(nn.Module):
    """Stride 2 with a row and a column of zeros at the far ends alone."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.pad(x, (0, 1, 0, 1)))


class Enlarge(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x.repeat_interleave(2, 2).repeat_interleave(2, 3))


class Encoder(nn.Module):
    def __init__(self, width: int, mult: tuple[int, ...], blocks: int, attends: bool) -> None:
        super().__init__()
        self.conv_in = nn.Conv2d(3, width, 3, padding=1)
        self.down = nn.ModuleList()
        c = width
        for level, m in enumerate(mult):
            block = nn.ModuleList()
            for _ in range(blocks):
                block.append(PlainResidual(c, m * width))
                c = m * width
            parts: dict[str, nn.Module] = {"block": block}
            if level < len(mult) - 1:
                parts["downsample"] = Shrink(c)
            self.down.append(nn.ModuleDict(parts))
        self.mid = middle(c, attends)
        self.norm_out, self.conv_out = norm(c), nn.Conv2d(c, 3, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv_in(x)
        for level in self.down:
            for block in level["block"]:
                h = block(h)
            if "downsample" in level:
                h = level["downsample"](h)
        for part in self.mid.values():
            h = part(h)
        return self.conv_out(F.silu(self.norm_out(h)))


class Decoder(nn.Module):
    def __init__(self, width: int, mult: tuple[int, ...], blocks: int, attends: bool) -> None:
        super().__init__()
        c = mult[-1] * width
        self.conv_in = nn.Conv2d(3, c, 3, padding=1)
        self.mid = middle(c, attends)
        levels: list[nn.Module] = []
        for level in reversed(range(len(mult))):
            block = nn.ModuleList()
            for _ in range(blocks + 1):
                block.append(PlainResidual(c, mult[level] * width))
                c = mult[level] * width
            parts: dict[str, nn.Module] = {"block": block}
            if level:
                parts["upsample"] = Enlarge(c)
            levels.insert(0, nn.ModuleDict(parts))
        self.up = nn.ModuleList(levels)
        self.norm_out, self.conv_out = norm(c), nn.Conv2d(c, 3, 3, padding=1)

    def forward(self, z: Tensor) -> Tensor:
        h = self.conv_in(z)
        for part in self.mid.values():
            h = part(h)
        for level in reversed(self.up):
            for block in level["block"]:
                h = block(h)
            if "upsample" in level:
                h = level["upsample"](h)
        return self.conv_out(F.silu(self.norm_out(h)))


class Autoencoder(nn.Module):
    def __init__(
        self, width: int, mult: tuple[int, ...], blocks: int, codes: int, attends: bool = True
    ) -> None:
        super().__init__()
        self.encoder = Encoder(width, mult, blocks, attends)
        self.decoder = Decoder(width, mult, blocks, attends)
        self.quantize = nn.ModuleDict({"embedding": nn.Embedding(codes, 3)})
        self.quant_conv, self.post_quant_conv = nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1)

    def encode(self, x: Tensor) -> Tensor:
        return self.quant_conv(self.encoder(x))

    def decode(self, latents: Tensor) -> Tensor:
        codes = self.quantize["embedding"].weight
        tokens = latents.permute(0, 2, 3, 1)
        nearest = ((tokens[..., None, :] - codes) ** 2).sum(-1).argmin(-1)
        return self.decoder(self.post_quant_conv(codes[nearest].permute(0, 3, 1, 2)))


# ---------------------------------------------------------------- a checkpoint


def tiny(
    classes: int = CLASSES, unet: dict[str, Any] = TINY, autoencoder: dict[str, Any] = TINY_VQ
) -> tuple[UNet, nn.Embedding, Autoencoder]:
    """Tiny networks, random, the same every time; the codes as far apart as latents are."""
    with torch.random.fork_rng():
        torch.manual_seed(7)
        embedding = nn.Embedding(classes + 1, unet["context"])
        parts = UNet(**unet), embedding, Autoencoder(**autoencoder)
        for part in parts:
            for parameter in part.eval().parameters():
                parameter.data += 0.05 * torch.randn_like(parameter)
        parts[2].quantize["embedding"].weight.data.normal_()
    return parts


def checkpoint(
    unet: UNet, classes: nn.Embedding, autoencoder: Autoencoder, averaged: UNet | None = None
) -> dict[str, Tensor]:
    """The state dict as the authors' training saves it, tables of the noise schedule included."""
    roots = torch.linspace(0.0015**0.5, 0.0195**0.5, 1000, dtype=torch.float64)
    abar = torch.cumprod(1 - roots**2, dim=0)
    before = torch.cat([torch.ones(1, dtype=torch.float64), abar[:-1]])
    variance = roots**2 * (1 - before) / (1 - abar)
    tables = {
        "betas": roots**2,
        "alphas_cumprod": abar,
        "alphas_cumprod_prev": before,
        "sqrt_alphas_cumprod": abar.sqrt(),
        "sqrt_one_minus_alphas_cumprod": (1 - abar).sqrt(),
        "log_one_minus_alphas_cumprod": (1 - abar).log(),
        "sqrt_recip_alphas_cumprod": (1 / abar).sqrt(),
        "sqrt_recipm1_alphas_cumprod": (1 / abar - 1).sqrt(),
        "posterior_variance": variance,
        "posterior_log_variance_clipped": variance.clamp(min=1e-20).log(),
        "posterior_mean_coef1": roots**2 * before.sqrt() / (1 - abar),
        "posterior_mean_coef2": (1 - before) * (1 - roots**2).sqrt() / (1 - abar),
    }
    state = {name: table.float() for name, table in tables.items()}
    state |= {f"model.diffusion_model.{k}": v for k, v in unet.state_dict().items()}
    if averaged is not None:
        flat = {f"diffusion_model{k}".replace(".", ""): v for k, v in averaged.state_dict().items()}
        state |= {f"model_ema.{k}": v for k, v in flat.items()}
        state |= {"model_ema.decay": torch.tensor(0.9999), "model_ema.num_updates": torch.tensor(9)}
    state |= {f"first_stage_model.{k}": v for k, v in autoencoder.state_dict().items()}
    return state | {"cond_stage_model.embedding.weight": classes.weight}
