"""The Recurrent Interface Network (Jabri et al. 2022, section 3), as its authors published it.

An image becomes tokens, the interface X; latents Z read from them, compute, and write to them:

    read     Z = Z + MHA(norm(Z), X);   Z = Z + MLP(norm(Z))
    compute  Z = Z + MHA(norm(Z));      Z = Z + MLP(norm(Z))       in each layer of the block
    write    X = X + MHA(norm(X), Z);   X = X + MLP(norm(X))

Noise level and class are two of the latents. Latents of the call before start the next
(section 3.2), by a norm whose scale and bias are zero at first:

    Z_0 = Z_init + norm(Z' + MLP(norm(Z')))
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from generation.denoisers.network import Denoiser
from generation.denoisers.recipe import DenoiserConfig
from generation.families.rin.recipe import RINShape

TIME_SCALE = 1e3  # abar, in [0, 1], is told in sines and cosines of it
POSITION_SPREAD = 0.02
TOLD = 2  # latents that tell noise level and class


def norm(width: int) -> nn.LayerNorm:
    """Layer normalisation with the authors' epsilon."""
    return nn.LayerNorm(width, eps=1e-6)


class MLP(nn.Module):
    """x + linear(gelu(linear(norm(x))))."""

    def __init__(self, width: int, expansion: int) -> None:
        super().__init__()
        self.norm = norm(width)
        self.wide = nn.Linear(width, expansion * width)
        self.narrow = nn.Linear(expansion * width, width)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = x + self.narrow(F.gelu(self.wide(self.norm(x))))
        return out


class Attention(nn.Module):
    """x + MHA(norm(x), source), of `inner` channels; without a source x attends to itself, normed.

    x float[N,T,width], source float[N,S,source_width].
    """

    def __init__(self, width: int, source_width: int, inner: int, heads: int) -> None:
        super().__init__()
        if inner % heads:
            raise ValueError(f"{heads} heads do not divide {inner} channels")
        self.heads = heads
        self.norm = norm(width)
        self.query = nn.Linear(width, inner)
        self.key, self.value = nn.Linear(source_width, inner), nn.Linear(source_width, inner)
        self.out = nn.Linear(inner, width)

    def initialize(self) -> None:
        """Glorot's uniform weights as Keras draws them for kernels of several heads.

        It takes all axes but the last two for a receptive field. So the kernel [D,H,K] of a
        projection to H heads of K channels counts H D and K D channels, and the one back, [H,K,D],
        K H and D H.
        """
        size = self.query.out_features // self.heads
        for layer in (self.query, self.key, self.value):
            _draw(layer.weight, layer.in_features * (self.heads + size))
        _draw(self.out.weight, self.heads * (size + self.out.out_features))

    def forward(self, x: Tensor, source: Tensor | None = None) -> Tensor:
        normed = self.norm(x)
        source = normed if source is None else source
        query, key, value = (
            tokens.unflatten(2, (self.heads, -1)).transpose(1, 2)
            for tokens in (self.query(normed), self.key(source), self.value(source))
        )
        found = F.scaled_dot_product_attention(query, key, value)
        out: Tensor = x + self.out(found.transpose(1, 2).flatten(2))
        return out


class Block(nn.Module):
    """Read, compute, write."""

    def __init__(self, shape: RINShape, layers: int) -> None:
        super().__init__()
        wide, narrow, expansion = shape.latent_width, shape.interface_width, shape.expansion
        inner = min(wide, narrow)
        self.read = Attention(wide, narrow, inner, shape.routing_heads)
        self.read_mlp = MLP(wide, expansion)
        self.attend = nn.ModuleList(Attention(wide, wide, wide, shape.heads) for _ in range(layers))
        self.attend_mlp = nn.ModuleList(MLP(wide, expansion) for _ in range(layers))
        self.write = Attention(narrow, wide, inner, shape.routing_heads)
        self.write_mlp = MLP(narrow, expansion)

    def forward(self, latents: Tensor, interface: Tensor) -> tuple[Tensor, Tensor]:
        latents = self.read_mlp(self.read(latents, interface))
        for attend, mlp in zip(self.attend, self.attend_mlp, strict=True):
            latents = mlp(attend(latents))
        return latents, self.write_mlp(self.write(interface, latents))


class NoiseLevel(nn.Module):
    """abar as one latent: an MLP of its sines and cosines, these with mean 0 and deviation 1."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.features = width // 4
        self.first, self.second = nn.Linear(self.features, width), nn.Linear(width, width)

    def forward(self, log_snr: Tensor) -> Tensor:
        half = self.features // 2
        rates = torch.exp(-math.log(1e4) * torch.arange(half, device=log_snr.device) / half)
        angles = TIME_SCALE * log_snr.sigmoid()[:, None] * rates
        features = torch.cat([angles.sin(), angles.cos()], dim=1)
        deviation, mean = torch.std_mean(features, dim=1, correction=0, keepdim=True)
        told: Tensor = self.second(F.silu(self.first((features - mean) / deviation)))
        return told


class RIN(Denoiser):
    """Carries its latents, float[N,T,latent_width], from one call to the next."""

    def __init__(self, config: DenoiserConfig) -> None:
        super().__init__(config)
        shape: RINShape = config.network
        wide, narrow, patch = shape.latent_width, shape.interface_width, shape.patch
        tokens = (config.stage.resolution // patch) ** 2
        self.enter, self.enter_norm = nn.Conv2d(config.channels, narrow, patch, patch), norm(narrow)
        self.place = nn.Parameter(torch.empty(1, tokens, narrow))
        self.latents = nn.Parameter(torch.empty(1, shape.latents - TOLD, wide))
        self.level = NoiseLevel(wide)
        self.classes = nn.Linear(max(1, len(config.classes) - 1), wide)  # the null class is no one
        self.before, self.before_norm = MLP(wide, shape.expansion), norm(wide)
        self.blocks = nn.ModuleList(Block(shape, layers) for layers in shape.blocks)
        self.leave_norm = norm(narrow)
        self.leave = nn.Linear(narrow, config.channels * patch**2)
        self.apply(_initialized)
        for module in self.modules():
            if isinstance(module, Attention):
                module.initialize()
        for embedding in (self.place, self.latents):
            nn.init.trunc_normal_(embedding, std=POSITION_SPREAD)
        nn.init.zeros_(self.before_norm.weight)

    def predict(
        self,
        x: Tensor,
        log_snr: Tensor,
        condition: Tensor,
        parent: Tensor | None,
        carried: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        """The prediction, float[N,C,H,W], and the latents."""
        assert parent is None
        patches = self.enter(x)
        interface = self.enter_norm(patches.flatten(2).transpose(1, 2)) + self.place
        latents = self._begin(log_snr, condition, carried)
        for block in self.blocks:
            latents, interface = block(latents, interface)
        said = self.leave(self.leave_norm(interface)).transpose(1, 2)
        said = said.unflatten(2, patches.shape[2:])
        return F.pixel_shuffle(said, self.config.network.patch), latents

    def _begin(self, log_snr: Tensor, condition: Tensor, carried: Tensor | None) -> Tensor:
        count = self.classes.in_features
        one_hot = F.one_hot(condition, count + 1)[:, :count].to(log_snr.dtype)
        told = torch.stack([self.level(log_snr), self.classes(one_hot)], dim=1)
        latents = torch.cat([self.latents.expand(len(told), -1, -1), told], dim=1)
        if carried is None:
            carried = torch.zeros_like(latents)
        begun: Tensor = latents + self.before_norm(self.before(carried))
        return begun


def _draw(weight: Tensor, channels: int) -> None:
    """Glorot's uniform weights of so many channels, in and out."""
    bound = math.sqrt(6 / channels)
    nn.init.uniform_(weight, -bound, bound)


def _initialized(module: nn.Module) -> None:
    """Glorot's uniform weights and no biases, as in the authors' framework."""
    if isinstance(module, nn.Linear | nn.Conv2d):
        nn.init.xavier_uniform_(module.weight)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
