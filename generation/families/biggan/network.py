"""BigGAN-deep's generator (Brock et al. 2019, appendix B, figure 16): one pass, noise to image.

Loads the weight layout of the package `pytorch-pretrained-biggan`, the only public one; spectral
normalisation is folded into the weights. Differences from that package: an image's noise comes
from its own seed, and statistics between two stored truncations lean towards the nearer one.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import BaseModel, ConfigDict, Field
from scipy.special import ndtr, ndtri
from torch import Tensor, nn

from generation.diffusion.sampler_config import SamplerConfig
from generation.families.biggan.generator import START, TRAINED_WEIGHTS, WEIGHTS
from generation.generator import ImageBatch, Screened
from generation.networks.placement import Placement
from generation.pretrained.components import require_first_stage, require_labels, to_uint8
from generation.pretrained.source_files import read_tensors
from release.errors import UserError

CONFIG = "config.json"
CUT = 2.0  # the latent's normal distribution is cut here, then scaled by the truncation
BOTTLENECK = 4  # a block's inner convolutions have a quarter of its input's channels


class BigGANConfig(BaseModel):
    """config.json of the public weights. layers: (doubles the side, input width, output width),
    widths in units of channel_width; attention stands before layer `attention_layer_position`.
    """

    model_config = ConfigDict(frozen=True)

    output_dim: int
    z_dim: int
    channel_width: int
    num_classes: int
    layers: tuple[tuple[bool, int, int], ...]
    attention_layer_position: int
    eps: Annotated[float, Field(gt=0)]
    n_stats: Annotated[int, Field(gt=1)]


class BatchNorm(nn.Module):
    """Batch normalisation by stored statistics, a row for each truncation from 0 to 1.

    of_batch: by those of the images at hand instead, in training; `seen` is what they were.
    """

    running_means: Tensor
    running_vars: Tensor
    of_batch = False
    seen: tuple[Tensor, Tensor] | None = None

    def __init__(self, width: int, config: BigGANConfig) -> None:
        super().__init__()
        self.eps = config.eps
        self.register_buffer("running_means", torch.zeros(config.n_stats, width))
        self.register_buffer("running_vars", torch.ones(config.n_stats, width))

    def normalized(self, x: Tensor, truncation: float) -> Tensor:
        """float[N,C,H,W], by the statistics at `truncation`, linear between stored ones."""
        if self.of_batch:
            mean = x.float().mean((0, 2, 3))
            variance = x.float().var((0, 2, 3), correction=0)
            self.seen = (mean.detach(), variance.detach())
        else:
            mean = interpolated(self.running_means, truncation)
            variance = interpolated(self.running_vars, truncation)
        return (x - _planes(mean)) * _planes(torch.rsqrt(variance + self.eps))


class ConditionalBatchNorm(BatchNorm):
    """Scale and offset are linear in the condition."""

    def __init__(self, width: int, config: BigGANConfig) -> None:
        super().__init__(width, config)
        self.scale = nn.Linear(2 * config.z_dim, width, bias=False)
        self.offset = nn.Linear(2 * config.z_dim, width, bias=False)

    def forward(self, x: Tensor, condition: Tensor, truncation: float) -> Tensor:
        scale, offset = _planes(1 + self.scale(condition)), _planes(self.offset(condition))
        return self.normalized(x, truncation) * scale + offset


class OutputBatchNorm(BatchNorm):
    """Scale and offset are learned."""

    def __init__(self, width: int, config: BigGANConfig) -> None:
        super().__init__(width, config)
        self.weight = nn.Parameter(torch.ones(width))
        self.bias = nn.Parameter(torch.zeros(width))

    def forward(self, x: Tensor, truncation: float) -> Tensor:
        return self.normalized(x, truncation) * _planes(self.weight) + _planes(self.bias)


class Block(nn.Module):
    """A residual block with a bottleneck; the skip path drops surplus channels."""

    def __init__(self, doubles: bool, width: int, out: int, config: BigGANConfig) -> None:
        super().__init__()
        inner = width // BOTTLENECK
        self.doubles, self.out = doubles, out
        for i, (before, after, kernel) in enumerate(
            [(width, inner, 1), (inner, inner, 3), (inner, inner, 3), (inner, out, 1)]
        ):
            self.add_module(f"bn_{i}", ConditionalBatchNorm(before, config))
            self.add_module(f"conv_{i}", nn.Conv2d(before, after, kernel, padding=kernel // 2))

    def forward(self, x: Tensor, condition: Tensor, truncation: float) -> Tensor:
        h = x
        for i in range(4):
            h = self.get_submodule(f"bn_{i}")(h, condition, truncation).relu()
            if i == 1 and self.doubles:
                h = F.interpolate(h, scale_factor=2)
            h = self.get_submodule(f"conv_{i}")(h)
        skip = x[:, : self.out]
        return h + (F.interpolate(skip, scale_factor=2) if self.doubles else skip)


class Attention(nn.Module):
    """Self-attention over positions, keys and values pooled by 2 (Zhang et al. 2019)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.snconv1x1_theta = nn.Conv2d(width, width // 8, 1, bias=False)
        self.snconv1x1_phi = nn.Conv2d(width, width // 8, 1, bias=False)
        self.snconv1x1_g = nn.Conv2d(width, width // 2, 1, bias=False)
        self.snconv1x1_o_conv = nn.Conv2d(width // 2, width, 1, bias=False)
        self.gamma = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        query = self.snconv1x1_theta(x).flatten(2).mT
        key = F.max_pool2d(self.snconv1x1_phi(x), 2).flatten(2).mT
        value = F.max_pool2d(self.snconv1x1_g(x), 2).flatten(2).mT
        mixed = F.scaled_dot_product_attention(query, key, value, scale=1.0)
        mixed = mixed.mT.unflatten(2, (x.shape[2], x.shape[3]))
        out: Tensor = self.gamma * self.snconv1x1_o_conv(mixed)
        return x + out


class Generator(nn.Module):
    """From the condition, float[N,2Z], to images, float[N,3,H,W] in [-1, 1]."""

    def __init__(self, config: BigGANConfig) -> None:
        super().__init__()
        width = config.channel_width
        self._first = config.layers[0][1] * width
        self.gen_z = nn.Linear(2 * config.z_dim, START * START * self._first)
        layers: list[nn.Module] = []
        for position, (doubles, before, after) in enumerate(config.layers):
            if position == config.attention_layer_position:
                layers.append(Attention(before * width))
            layers.append(Block(doubles, before * width, after * width, config))
        self.layers = nn.ModuleList(layers)
        out = config.layers[-1][2] * width
        self.bn = OutputBatchNorm(out, config)
        self.conv_to_rgb = nn.Conv2d(out, out, 3, padding=1)  # as stored: 3 channels are used

    def forward(self, condition: Tensor, truncation: float) -> Tensor:
        # the weights come from TensorFlow: channels last
        x = self.gen_z(condition).view(-1, START, START, self._first).permute(0, 3, 1, 2)
        for layer in self.layers:
            x = layer(x) if isinstance(layer, Attention) else layer(x, condition, truncation)
        x = self.bn(x, truncation).relu()
        weight, bias = self.conv_to_rgb.weight, self.conv_to_rgb.bias
        assert bias is not None
        return F.conv2d(x, weight[:3], bias[:3], padding=1).tanh()


class BigGAN(nn.Module):
    """The generator with its class embedding."""

    def __init__(self, config: BigGANConfig) -> None:
        super().__init__()
        self.config = config
        self.embeddings = nn.Linear(config.num_classes, config.z_dim, bias=False)
        self.generator = Generator(config)

    def forward(self, z: Tensor, labels: Tensor, truncation: float) -> Tensor:
        """z float[N,Z], already truncated; labels int64[N]; float[N,3,H,W] in [-1, 1]."""
        embedded = self.embeddings.weight.T[labels]
        images: Tensor = self.generator(torch.cat([z, embedded], dim=1), truncation)
        return images


class BigGANGenerator:
    """Samples BigGAN-deep in float32."""

    def __init__(self, network: BigGAN, placement: Placement) -> None:
        self._network = placement.place(network, torch.float32)
        self._device = placement.device

    def sample(self, batch: ImageBatch, settings: SamplerConfig) -> np.ndarray | Screened:
        """uint8[N,H,W,3]; UserError for settings, labels or parents that do not fit a GAN."""
        config = self._network.config
        require_first_stage(batch, "BigGAN")
        require_labels(batch, config.num_classes, "BigGAN")
        if settings.truncation is None:
            raise UserError('a GAN needs sampler = { method = "truncation", truncation = … }')
        z = torch.from_numpy(truncated_noise(batch.seeds, config.z_dim, settings.truncation))
        labels = torch.tensor(list(batch.labels), device=self._device)
        with torch.inference_mode():
            images = self._network(z.to(self._device), labels, settings.truncation)
        return to_uint8(images)


def truncated_noise(seeds: Sequence[int], size: int, truncation: float) -> np.ndarray:
    """float32[N,size]: a normal cut at 2, times `truncation`; row i from its own seed alone."""
    streams = (np.random.Generator(np.random.Philox(key=seed)) for seed in seeds)
    uniform = np.stack([stream.random(size) for stream in streams])
    cut: np.ndarray = ndtri(ndtr(-CUT) + uniform * (ndtr(CUT) - ndtr(-CUT)))
    return (truncation * cut).astype(np.float32)


def interpolated(table: Tensor, truncation: float) -> Tensor:
    """The row of `table` at `truncation`: row i stands for i / (rows - 1)."""
    position = truncation * (len(table) - 1)
    low = min(int(position), len(table) - 2)
    return torch.lerp(table[low], table[low + 1], position - low)


def load_biggan(folder: Path) -> BigGAN:
    """The network of `folder`; UserError if its weights are not those config.json speaks of."""
    config = BigGANConfig.model_validate_json((folder / CONFIG).read_text())
    with torch.device("meta"):
        network = BigGAN(config)
    trained = folder / TRAINED_WEIGHTS
    if trained.is_file():
        stored = read_tensors(trained)
    else:
        stored = torch.load(folder / WEIGHTS, map_location="cpu", weights_only=True)
    try:
        network.load_state_dict(fold_spectral_norm(stored), assign=True)
    except RuntimeError as error:
        first = str(error).splitlines()[1].strip()
        raise UserError(f"{folder / WEIGHTS} does not fit its {CONFIG}: {first}") from None
    return network


def fold_spectral_norm(stored: dict[str, Tensor]) -> dict[str, Tensor]:
    """Each W / (u' W v) (Miyato et al. 2018, eq. 8) in place of W, u and v; the rest as it is."""
    folded = {}
    for name, value in stored.items():
        if name.endswith("_orig"):
            weight = name.removesuffix("_orig")
            u, v = stored[f"{weight}_u"], stored[f"{weight}_v"]
            folded[weight] = value / torch.dot(u, value.flatten(1) @ v)
        elif not name.endswith(("weight_u", "weight_v")):
            folded[name] = value
    return folded


def _planes(x: Tensor) -> Tensor:
    """[…,C] as [N,C,1,1]."""
    return x.view(-1, x.shape[-1], 1, 1)
