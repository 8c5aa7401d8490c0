"""Improved MeanFlow: against its paper in plain arithmetic, a known answer, and its layout."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from generation.diffusion.sampler_config import SamplerConfig
from generation.families import generator_source
from generation.families.mean_flow.converter import convert
from generation.families.mean_flow.network import MeanFlowNetwork
from generation.families.mean_flow.sampling import along_mean_velocity
from generation.families.mean_flow.work import SIZES, published_plan
from generation.generator import ImageBatch
from release.errors import UserError
from tests.models.tiny_mean_flow import TOKENS, mean_flow_state, save_mean_flow, tiny_mean_flow

MEAN, STD = 0.7, 0.4
FLAX = "_flax_linear"
SETTINGS = SamplerConfig(
    method="mean-flow", steps=2, guidance=4.0, guidance_interval=(0.36, 0.64), threshold="none"
)


def rms(x: Tensor, weight: Tensor) -> Tensor:
    return x / (x.square().mean(-1, keepdim=True) + 1e-6).sqrt() * weight


class Reference:
    """The paper's network, from tensors by the authors' keys; one image at a time, in float64."""

    def __init__(self, state: dict[str, Tensor]) -> None:
        self.state = {key.removeprefix("net."): t.double() for key, t in state.items()}

    def linear(self, name: str, x: Tensor) -> Tensor:
        bias = self.state.get(f"{name}.{FLAX}.bias")
        out = x @ self.state[f"{name}.{FLAX}.weight"].T
        return out if bias is None else out + bias

    def embedded(self, name: str, value: float) -> Tensor:
        angles = [value * math.exp(-math.log(10000) * i / 128) for i in range(128)]
        waves = torch.tensor([math.cos(a) for a in angles] + [math.sin(a) for a in angles]).double()
        return self.linear(
            f"{name}.mlp.2", torch.nn.functional.silu(self.linear(f"{name}.mlp.0", waves))
        )

    def rotated(self, head: Tensor) -> Tensor:
        """float[T,W]: at place p, channels 2i and 2i + 1 turn by p / 10000^(2i / W)."""
        out = torch.empty_like(head)
        for place, row in enumerate(head):
            for i in range(0, head.shape[1], 2):
                angle = place / 10000 ** (i / head.shape[1])
                a, b = row[i], row[i + 1]
                out[place, i] = a * math.cos(angle) - b * math.sin(angle)
                out[place, i + 1] = a * math.sin(angle) + b * math.cos(angle)
        return out

    def block(self, name: str, x: Tensor, heads: int) -> Tensor:
        seen, parts = rms(x, self.state[f"{name}.norm1.weight"]), []
        query, key, value = (self.linear(f"{name}.attn.{part}_proj", seen) for part in "qkv")
        width = x.shape[1] // heads
        for h in range(heads):
            at = slice(h * width, (h + 1) * width)
            q = self.rotated(rms(query[:, at], self.state[f"{name}.attn.q_norm.weight"]))
            k = self.rotated(rms(key[:, at], self.state[f"{name}.attn.k_norm.weight"]))
            parts.append((q @ k.T / math.sqrt(width)).softmax(-1) @ value[:, at])
        attended = self.linear(f"{name}.attn.out_proj", torch.cat(parts, dim=1))
        x = x + attended * self.state[f"{name}.attn_scale"]
        seen = rms(x, self.state[f"{name}.norm2.weight"])
        gated = torch.nn.functional.silu(self.linear(f"{name}.mlp.w1", seen))
        hidden = gated * self.linear(f"{name}.mlp.w3", seen)
        return x + self.linear(f"{name}.mlp.w2", hidden) * self.state[f"{name}.mlp_scale"]

    def __call__(
        self, x: Tensor, h: float, y: int, w: float, low: float, high: float, heads: int
    ) -> Tensor:
        """x float[C,S,S] => float[C,S,S]."""
        embedding = self.state["y_embedder.embedding_table._flax_embedding.weight"]
        tokens = torch.cat(
            [
                self.state["class_tokens"] + embedding[y],
                self.state["omega_tokens"] + self.embedded("omega_embedder", 1 - 1 / w),
                self.state["t_min_tokens"] + self.embedded("cfg_t_start_embedder", low),
                self.state["t_max_tokens"] + self.embedded("cfg_t_end_embedder", high),
                self.state["time_tokens"] + self.embedded("h_embedder", h),
                *self.patches(x),
            ]
        )
        blocks = sorted({k.rsplit(".", 1)[0] for k in self.state if k.endswith("attn_scale")})
        assert blocks == ["shared_blocks.0", "shared_blocks.1", "u_heads.0"]
        for name in blocks:
            tokens = self.block(name, tokens, heads)
        last = rms(tokens[sum(TOKENS) :], self.state["u_final_layer.norm.weight"])
        return self.image(self.linear("u_final_layer.linear", last), x.shape)

    def patches(self, x: Tensor) -> list[Tensor]:
        weight = self.state["x_embedder.proj.weight"]
        found = []
        for row in range(0, x.shape[1], 2):
            for column in range(0, x.shape[2], 2):
                patch = x[:, row : row + 2, column : column + 2].double()
                said = (weight * patch).sum((1, 2, 3)) + self.state["x_embedder.proj.bias"]
                found.append(said[None])
        return found

    def image(self, said: Tensor, shape: Any) -> Tensor:
        channels, side, _ = shape
        out = torch.empty(channels, side, side, dtype=torch.float64)
        for i, token in enumerate(said):
            row, column = divmod(i, side // 2)
            patch = token.reshape(2, 2, channels).permute(2, 0, 1)
            out[:, 2 * row : 2 * row + 2, 2 * column : 2 * column + 2] = patch
        return out


@torch.no_grad()
def test_the_network_is_the_papers() -> None:
    network = tiny_mean_flow()
    state = mean_flow_state(network)
    ours, reference = convert(state, 4, "tiny").double(), Reference(state)
    torch.manual_seed(1)
    x, y = torch.randn(3, 4, 4, 4).double(), [2, 0, 3]
    told = [(1.0, 8.0, 0.42, 0.62), (0.5, 1.0, 0.0, 1.0), (0.25, 4.0, 0.36, 0.64)]
    h, w, low, high = (torch.tensor(column).double() for column in zip(*told, strict=True))
    made = ours(x, h, torch.tensor(y), w, (low, high))
    for i, settings in enumerate(told):
        length, *rest = settings
        wanted = reference(x[i], length, y[i], *rest, heads=2)
        assert float(wanted.abs().max()) > 0.1
        np.testing.assert_allclose(made[i], wanted, atol=1e-5, rtol=1e-5)


def test_every_key_is_mapped_once_and_the_way_back_gives_the_same() -> None:
    network = tiny_mean_flow()
    again = convert(mean_flow_state(network), 4, "tiny")
    assert again.plan == network.plan
    for name, tensor in network.state_dict().items():
        assert torch.equal(tensor, again.state_dict()[name])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"net.u_heads.0.attn.extra": torch.zeros(1)}, "it has u_heads.0.attn.extra, which is"),
        ({"net.v_heads.0.attn_scale": torch.zeros(1)}, "it has v_heads.0.attn_scale, which is"),
        ({"ema.x": torch.zeros(1)}, "it has ema.x, which is not known"),
        ({"net.shared_blocks.1.mlp_scale": None}, "lacks blocks.1.mlp_gate"),
        ({"net.omega_tokens": None}, "is no improved MeanFlow in its authors' layout"),
        ({"net.time_tokens": torch.zeros(2, 3)}, r"tokens.4 is \(2, 3\), not \(2, 16\)"),
    ],
)
def test_other_layouts_are_refused_in_a_line(change: dict[str, Any], words: str) -> None:
    state: dict[str, Any] = mean_flow_state(tiny_mean_flow()) | change
    with pytest.raises(UserError, match=words):
        convert({name: t for name, t in state.items() if t is not None}, 4, "iMF.pth")


@pytest.mark.parametrize(("name", "millions"), list(zip(SIZES, (89, 174, 409, 610), strict=True)))
def test_full_networks_have_the_published_sizes(name: str, millions: int) -> None:
    """Geng et al. 2025, of the way to the mean velocity."""
    with torch.device("meta"):
        network = MeanFlowNetwork(published_plan(name))
    assert round(sum(p.numel() for p in network.parameters()) / 1e6) == millions


@pytest.mark.parametrize("steps", [1, 2, 5])
def test_steps_end_where_the_flow_of_a_gaussian_ends(steps: int) -> None:
    """Its mean velocity is known: z_r = (1 - r) MEAN + s_r / s_t (z_t - (1 - t) MEAN)."""
    times = [1 - i / steps for i in range(steps)]

    def deviation(t: float) -> float:
        return math.sqrt(((1 - t) * STD) ** 2 + t**2)

    def network(z: Tensor, length: Tensor, *_: Any) -> Tensor:
        t = times.pop(0)
        r = t - float(length[0])
        ahead = (1 - r) * MEAN + deviation(r) / deviation(t) * (z - (1 - t) * MEAN)
        return (z - ahead) / (t - r)

    torch.manual_seed(3)
    noise = torch.randn(64, 1, 1, 1, dtype=torch.float64)
    settings = SETTINGS.model_copy(update={"steps": steps})
    made = along_mean_velocity(network, noise, torch.zeros(64, dtype=torch.int64), settings)
    assert float((made - (MEAN + STD * noise)).abs().max()) < 1e-12
    assert settings.network_evaluations == steps


def test_a_file_is_sampled_in_one_step_as_by_hand(tmp_path: Path) -> None:
    from diffusers import AutoencoderKL

    from generation.diffusion.noise import image_noise
    from generation.families.mean_flow.sampling import DEVIATION, MEAN

    file = save_mean_flow(tmp_path / "iMF.pth")
    source = generator_source("mean-flow")
    assert source.locate(str(file)) == file
    generator = source.load(file, compiled=False)
    one = SETTINGS.model_copy(update={"steps": 1})
    batch = ImageBatch(["a", "b", "c"], [0, 2, 1], [1, 2, 3], None, 64)
    images = generator.sample(batch, one)
    assert (images.shape, images.dtype) == ((3, 64, 64, 3), np.uint8)
    assert len({image.tobytes() for image in images}) == 3
    z = torch.from_numpy(next(image_noise([2], (4, 32, 32))).copy())
    told = [torch.tensor([value]) for value in (1.0, 4.0, 0.36, 0.64)]
    network = tiny_mean_flow(32)
    with torch.no_grad():
        z = z - network(z, told[0], torch.tensor([2]), told[1], (told[2], told[3]))
        latents = z * torch.tensor(DEVIATION).view(4, 1, 1) + torch.tensor(MEAN).view(4, 1, 1)
        pixels = AutoencoderKL.from_pretrained(tmp_path / "sd-vae-ft-mse").eval().decode(latents)
    levels = ((pixels.sample + 1) * 127.5).round().clamp(0, 255)
    np.testing.assert_allclose(images[1].astype(int), levels[0].permute(1, 2, 0).int(), atol=1)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"method": "euler"}, "says a mean velocity: its sampler needs method = 'mean-flow'"),
        ({"threshold": "static"}, "a flow has no estimate to clip"),
        ({"guidance": 0.0}, "give a guidance above 0"),
        ({"noise_augmentation": 0.2}, "knows no noise in parents"),
    ],
)
def test_settings_without_effect_are_refused(
    changes: dict[str, Any], words: str, tmp_path: Path
) -> None:
    generator = generator_source("mean-flow").load(save_mean_flow(tmp_path / "iMF.pth"), False)
    batch = ImageBatch(["a"], [0], [1], None, 64)
    with pytest.raises(UserError, match=words):
        generator.sample(batch, SETTINGS.model_copy(update=changes))
    with pytest.raises(UserError, match="label 3 is not among the 3 classes"):
        generator.sample(ImageBatch(["a"], [3], [1], None, 64), SETTINGS)
