"""MAR's networks (Li et al. 2024, arXiv 2406.11838, section 3).

A masked autoencoder of vision transformers: the encoder reads the tokens that are known, after a
buffer of tokens that say the class; the decoder sees them at their places among mask tokens, and
says of each asked place what a small network is told, which diffuses that place's token. As in the
authors' code under autocast the stream of tokens stays in float32, products run in the weights'
dtype.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from generation.families.mar.plan import MARPlan
from generation.networks.transformer import TimeEmbedding

EPSILON = 1e-6
MLP = 4  # times the width


class MAR(nn.Module):
    """The autoencoder, and `denoiser`, the network of a token."""

    def __init__(self, plan: MARPlan) -> None:
        super().__init__()
        self.plan = plan
        width, places = plan.width, plan.buffer + plan.tokens
        self.classes = nn.Embedding(plan.classes, width)
        self.first, self.first_norm = nn.Linear(plan.channels, width), _norm(width)
        self.places = nn.Parameter(torch.empty(places, width))
        self.encoder = nn.ModuleList(Block(width, plan.heads) for _ in range(plan.depth[0]))
        self.encoder_norm = _norm(width)
        self.bridge = nn.Linear(width, width)
        self.mask = nn.Parameter(torch.empty(width))
        self.decoder_places = nn.Parameter(torch.empty(places, width))
        self.decoder = nn.ModuleList(Block(width, plan.heads) for _ in range(plan.depth[1]))
        self.decoder_norm = _norm(width)
        self.told_places = nn.Parameter(torch.empty(plan.tokens, width))
        self.denoiser = TokenDenoiser(plan)

    def forward(self, tokens: Tensor, known: Tensor, asked: Tensor, condition: Tensor) -> Tensor:
        """float32[N,k,width]: what the denoiser is told of each asked token.

        tokens float32[N,T,C]; known int64[N,K], asked int64[N,k]: their places; condition int64[N].
        """
        read = self._read(at_places(tokens, known), known, condition)
        return at_places(self._decoded(read, known), asked)

    def _read(self, tokens: Tensor, known: Tensor, condition: Tensor) -> Tensor:
        """float32[N, buffer + K, width], of float32[N,K,C]."""
        buffer = self.plan.buffer
        told = self.classes(condition)[:, None].expand(-1, buffer, -1).float()
        seen = self.first(tokens.to(self.first.weight.dtype)).float()
        places = self.places.float()
        x = torch.cat([told + places[:buffer], seen + places[buffer:][known]], dim=1)
        x = _normed(self.first_norm, x)
        for block in self.encoder:
            x = block(x)
        return _normed(self.encoder_norm, x)

    def _decoded(self, read: Tensor, known: Tensor) -> Tensor:
        """float32[N,T,width]."""
        buffer = self.plan.buffer
        x = self.bridge(read.to(self.bridge.weight.dtype)).float()
        masks = self.mask.float().expand(len(x), self.plan.tokens, -1)
        x = torch.cat([x[:, :buffer], with_places(masks, known, x[:, buffer:])], dim=1)
        x = x + self.decoder_places.float()
        for block in self.decoder:
            x = block(x)
        out: Tensor = _normed(self.decoder_norm, x)[:, buffer:] + self.told_places.float()
        return out


class Block(nn.Module):
    """Attention and MLP over float32[N,T,width]."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.attention_norm, self.mlp_norm = _norm(width), _norm(width)
        self.qkv, self.projection = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.first, self.second = nn.Linear(width, MLP * width), nn.Linear(MLP * width, width)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self._attended(_normed(self.attention_norm, x)).float()
        seen = _normed(self.mlp_norm, x).to(self.first.weight.dtype)
        out: Tensor = x + self.second(F.gelu(self.first(seen))).float()
        return out

    def _attended(self, x: Tensor) -> Tensor:
        split = self.qkv(x.to(self.qkv.weight.dtype)).unflatten(2, (3, self.heads, -1))
        query, key, value = split.permute(2, 0, 3, 1, 4)
        found = F.scaled_dot_product_attention(query, key, value)
        out: Tensor = self.projection(found.transpose(1, 2).flatten(2))
        return out


class TokenDenoiser(nn.Module):
    """An MLP whose norms a condition modulates; it says noise and variance of one token."""

    def __init__(self, plan: MARPlan) -> None:
        super().__init__()
        width = plan.denoiser_width
        self.time, self.told = TimeEmbedding(width), nn.Linear(plan.width, width)
        self.first = nn.Linear(plan.channels, width)
        self.blocks = nn.ModuleList(TokenBlock(width) for _ in range(plan.denoiser_depth))
        self.modulation = nn.Linear(width, 2 * width)
        self.out = nn.Linear(width, 2 * plan.channels)

    def forward(self, x: Tensor, time: Tensor, told: Tensor) -> Tensor:
        """float32[M,2C], of tokens x float32[M,C]; time float[M], 0 to 999; told float32[M,W]."""
        dtype = self.out.weight.dtype
        condition = F.silu(self.time(time) + self.told(told.to(dtype)))
        x = self.first(x.to(dtype)).float()
        for block in self.blocks:
            x = block(x, condition)
        shift, scale = self.modulation(condition).float().chunk(2, dim=1)
        x = F.layer_norm(x, x.shape[-1:], eps=EPSILON) * (1 + scale) + shift
        said: Tensor = self.out(x.to(dtype)).float()
        return said


class TokenBlock(nn.Module):
    """Two layers over float32[M,width], told [M,width]."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = _norm(width)
        self.first, self.second = nn.Linear(width, width), nn.Linear(width, width)
        self.modulation = nn.Linear(width, 3 * width)

    def forward(self, x: Tensor, told: Tensor) -> Tensor:
        shift, scale, gate = self.modulation(told).float().chunk(3, dim=1)
        seen = _normed(self.norm, x) * (1 + scale) + shift
        hidden = F.silu(self.first(seen.to(self.first.weight.dtype)))
        out: Tensor = x + gate * self.second(hidden).float()
        return out


def at_places(tokens: Tensor, places: Tensor) -> Tensor:
    """[N,k,D], of [N,T,D] at places int64[N,k]."""
    return tokens.gather(1, places[..., None].expand(-1, -1, tokens.shape[2]))


def with_places(tokens: Tensor, places: Tensor, new: Tensor) -> Tensor:
    """[N,T,D]: `tokens`, but those at places int64[N,k] are of `new` [N,k,D]."""
    return tokens.scatter(1, places[..., None].expand(-1, -1, tokens.shape[2]), new)


def _norm(width: int) -> nn.LayerNorm:
    return nn.LayerNorm(width, eps=EPSILON)


def _normed(norm: nn.LayerNorm, x: Tensor) -> Tensor:
    """In float32."""
    return F.layer_norm(x, x.shape[-1:], norm.weight.float(), norm.bias.float(), norm.eps)
