"""BigGAN-deep against an independent forward pass, its published size, and its truncation."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from generation.diffusion.sampler_config import SamplerConfig
from generation.families import generator_source
from generation.families.biggan.network import BigGAN, BigGANConfig, load_biggan, truncated_noise
from generation.generator import ImageBatch
from release.errors import UserError
from tests.models.tiny_models import BIGGAN, save_biggan

CUT = SamplerConfig(method="truncation", truncation=0.5)
# Brock et al. 2019, table 8: widths in units of 128 at 256 px, attention at 64 px.
LAYERS_256 = [
    (False, 16, 16),
    (True, 16, 16),
    (False, 16, 16),
    (True, 16, 8),
    (False, 8, 8),
    (True, 8, 8),
    (False, 8, 8),
    (True, 8, 4),
    (False, 4, 4),
    (True, 4, 2),
    (False, 2, 2),
    (True, 2, 1),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_biggan(tmp_path_factory.mktemp("models") / "biggan")


class Reference:
    """The published network on the published weights, written from the paper, a function a part."""

    def __init__(self, stored: dict[str, Tensor], truncation: float) -> None:
        self.stored = stored
        self.truncation = truncation

    def weight(self, name: str) -> Tensor:
        """Spectrally normalised, Miyato et al. 2018: W over the estimate of its largest one."""
        matrix = self.stored[f"{name}.weight_orig"]
        rows = matrix.reshape(len(matrix), -1)
        sigma = self.stored[f"{name}.weight_u"] @ rows @ self.stored[f"{name}.weight_v"]
        return matrix / sigma

    def statistic(self, name: str) -> Tensor:
        table = self.stored[name].numpy()
        at = np.linspace(0, 1, len(table))
        columns = [np.interp(self.truncation, at, column) for column in table.T]
        return torch.tensor(np.array(columns), dtype=torch.float32)[:, None, None]

    def normalized(self, name: str, x: Tensor) -> Tensor:
        mean, variance = (self.statistic(f"{name}.running_{s}") for s in ("means", "vars"))
        return (x - mean) / torch.sqrt(variance + 1e-4)

    def block(self, name: str, x: Tensor, condition: Tensor, doubles: bool) -> Tensor:
        h = x
        for i, padding in enumerate((0, 1, 1, 0)):
            gain = 1 + condition @ self.weight(f"{name}.bn_{i}.scale").T
            bias = condition @ self.weight(f"{name}.bn_{i}.offset").T
            h = self.normalized(f"{name}.bn_{i}", h)
            h = torch.clamp(h * gain[:, :, None, None] + bias[:, :, None, None], min=0)
            if doubles and i == 1:
                h = h.repeat_interleave(2, 2).repeat_interleave(2, 3)
            bias = self.stored[f"{name}.conv_{i}.bias"]
            h = F.conv2d(h, self.weight(f"{name}.conv_{i}"), bias, padding=padding)
        skip = x[:, : h.shape[1]]
        if doubles:
            skip = skip.repeat_interleave(2, 2).repeat_interleave(2, 3)
        return h + skip

    def attention(self, name: str, x: Tensor) -> Tensor:
        n, _, side, _ = x.shape

        def convolved(part: str, pooled: bool) -> Tensor:
            out = F.conv2d(x, self.weight(f"{name}.snconv1x1_{part}"))
            return (F.max_pool2d(out, 2) if pooled else out).reshape(n, out.shape[1], -1)

        scores = torch.einsum("ncq,nck->nqk", convolved("theta", False), convolved("phi", True))
        mixed = torch.einsum("nck,nqk->ncq", convolved("g", True), scores.softmax(-1))
        mixed = mixed.reshape(n, -1, side, side)
        out = F.conv2d(mixed, self.weight(f"{name}.snconv1x1_o_conv"))
        return x + self.stored[f"{name}.gamma"] * out

    def images(self, z: Tensor, labels: list[int]) -> Tensor:
        condition = torch.cat([z, self.stored["embeddings.weight"][:, labels].T], dim=1)
        x = condition @ self.weight("generator.gen_z").T + self.stored["generator.gen_z.bias"]
        x = x.reshape(len(z), 4, 4, -1).movedim(3, 1)
        x = self.block("generator.layers.0", x, condition, doubles=False)
        x = self.block("generator.layers.1", x, condition, doubles=True)
        x = self.attention("generator.layers.2", x)
        x = self.block("generator.layers.3", x, condition, doubles=True)
        gain, bias = (self.stored[f"generator.bn.{s}"][:, None, None] for s in ("weight", "bias"))
        x = torch.clamp(self.normalized("generator.bn", x) * gain + bias, min=0)
        name = "generator.conv_to_rgb"
        x = F.conv2d(x, self.weight(name), self.stored[f"{name}.bias"], padding=1)
        return torch.tanh(x[:, :3])


@pytest.mark.parametrize("truncation", [0.5, 0.513, 1.0])
@torch.no_grad()
def test_the_network_is_the_published_one(folder: Path, truncation: float) -> None:
    stored = torch.load(folder / "pytorch_model.bin", weights_only=True)
    z = torch.randn(4, 8, generator=torch.Generator().manual_seed(3))
    labels = [2, 0, 1, 2]
    expected = Reference(stored, truncation).images(z, labels)
    made = load_biggan(folder).eval()(z, torch.tensor(labels), truncation)
    torch.testing.assert_close(made, expected, atol=1e-5, rtol=1e-5)
    assert made.std() > 0.1


def test_the_full_network_has_the_published_size() -> None:
    """55.9 M (Brock et al. 2019): 55,880,833 as stored, statistics and singular vectors left out.

    The last convolution counts in full, though only 3 of its 128 output channels are read.
    """
    shape = BIGGAN | {
        "z_dim": 128,
        "channel_width": 128,
        "num_classes": 1000,
        "layers": LAYERS_256,
        "attention_layer_position": 8,
    }
    with torch.device("meta"):
        network = BigGAN(BigGANConfig.model_validate(shape))
    assert sum(p.numel() for p in network.parameters()) == 55_880_833


def test_truncated_noise_is_a_cut_normal_of_each_seed() -> None:
    noise = truncated_noise([1, 2], 20_000, 0.4)
    assert noise.dtype == np.float32
    assert np.abs(noise).max() <= 0.8
    # variance of a standard normal cut at 2: 1 - 2*2*phi(2) / (2*Phi(2) - 1) = 0.7737
    assert (noise / 0.4).var() == pytest.approx(0.7737, abs=0.01)
    np.testing.assert_array_equal(truncated_noise([2], 20_000, 0.4)[0], noise[1])
    np.testing.assert_allclose(truncated_noise([2], 8, 1.0) * 0.4, noise[1:, :8], rtol=1e-6)


def test_what_does_not_fit_is_refused(folder: Path, tmp_path: Path) -> None:
    source = generator_source("biggan")
    generator = source.load(source.locate(str(folder)), compiled=False)
    batch = ImageBatch(["a"], [3], [1], None, 16)
    with pytest.raises(UserError, match="label 3 is not among the 3 classes of BigGAN"):
        generator.sample(batch, CUT)
    batch = ImageBatch(["a"], [0], [1], None, 16)
    with pytest.raises(UserError, match='method = "truncation"'):
        generator.sample(batch, SamplerConfig())
    with pytest.raises(UserError, match=r"is not a BigGAN checkpoint: no config.json"):
        source.locate(str(tmp_path))
    other = save_biggan(tmp_path / "other")
    (other / "config.json").write_text(json.dumps(BIGGAN | {"channel_width": 16}))
    with pytest.raises(UserError, match=r"does not fit its config.json: size mismatch"):
        source.load(other, compiled=False)
