"""MAR: against its paper in plain arithmetic, its order and schedule, layout and sizes."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch import Tensor
from torch._inductor import config

from generation.diffusion.noise import ImageStreams, image_noise, permutations
from generation.diffusion.sampler_config import SamplerConfig
from generation.families import generator_source
from generation.families.mar.converter import authors_state, convert
from generation.families.mar.network import MAR
from generation.families.mar.plan import PUBLISHED, MARPlan
from generation.families.mar.sampling import SCHEDULE, diffused, drawn_tokens, masked_after
from generation.families.mar.work import published_work
from generation.generator import ImageBatch
from release.errors import UserError
from tests.models.codes.tiny_mar import mar_state, save_mar, tiny_plan

SETTINGS = SamplerConfig(
    method="masked-autoregressive", steps=6, diffusion_steps=5, guidance=2.9, threshold="none"
)


class Reference:
    """Li et al. 2024 by the authors' tensors, in float64: one image, token by token in a list."""

    def __init__(self, state: dict[str, Tensor], plan: MARPlan) -> None:
        self.state = {key: t.double() for key, t in state.items()}
        self.plan = plan

    def linear(self, name: str, x: Tensor) -> Tensor:
        return x @ self.state[f"{name}.weight"].T + self.state[f"{name}.bias"]

    def norm(self, x: Tensor, name: str | None = None) -> Tensor:
        centred = x - x.mean(-1, keepdim=True)
        unit = centred / (centred.square().mean(-1, keepdim=True) + 1e-6).sqrt()
        if name is None:
            return unit
        return unit * self.state[f"{name}.weight"] + self.state[f"{name}.bias"]

    @staticmethod
    def silu(x: Tensor) -> Tensor:
        return x / (1 + (-x).exp())

    def block(self, name: str, x: Tensor) -> Tensor:
        width, said = self.plan.width, []
        parts = self.linear(f"{name}.attn.qkv", self.norm(x, f"{name}.norm1"))
        own = width // 16
        for h in range(16):
            q, k, v = (parts[:, p * width + h * own : p * width + (h + 1) * own] for p in range(3))
            said.append((q @ k.T / math.sqrt(own)).softmax(1) @ v)
        x = x + self.linear(f"{name}.attn.proj", torch.cat(said, dim=1))
        hidden = self.linear(f"{name}.mlp.fc1", self.norm(x, f"{name}.norm2"))
        hidden = hidden * (1 + torch.erf(hidden / math.sqrt(2))) / 2
        return x + self.linear(f"{name}.mlp.fc2", hidden)

    def told(self, tokens: dict[int, Tensor], label: int | None) -> list[Tensor]:
        """Of every place; label None: the null class."""
        state, buffer, plan = self.state, self.plan.buffer, self.plan
        one = state["fake_latent"][0] if label is None else state["class_emb.weight"][label]
        places = state["encoder_pos_embed_learned"][0]
        rows = [one + places[b] for b in range(buffer)]
        rows += [self.linear("z_proj", t) + places[buffer + p] for p, t in tokens.items()]
        x = self.norm(torch.stack(rows), "z_proj_ln")
        for i in range(plan.depth[0]):
            x = self.block(f"encoder_blocks.{i}", x)
        read = self.linear("decoder_embed", self.norm(x, "encoder_norm"))
        placed = [*read[:buffer], *[state["mask_token"][0, 0]] * plan.tokens]
        for row, p in zip(read[buffer:], tokens, strict=True):
            placed[buffer + p] = row
        x = torch.stack(placed) + state["decoder_pos_embed_learned"][0]
        for i in range(plan.depth[1]):
            x = self.block(f"decoder_blocks.{i}", x)
        x = self.norm(x, "decoder_norm")[buffer:] + state["diffusion_pos_embed_learned"][0]
        return list(x)

    def denoised(self, x: Tensor, t: float, told: Tensor) -> tuple[Tensor, Tensor]:
        """Noise and variance of one token; its time's angles in float32, as the authors'."""
        net = "diffloss.net"
        angles = (t * torch.exp(-math.log(10000) * torch.arange(128).float() / 128)).double()
        waves = torch.cat([angles.cos(), angles.sin()])
        time = self.linear(f"{net}.time_embed.mlp.0", waves)
        y = self.linear(f"{net}.time_embed.mlp.2", self.silu(time))
        y = self.silu(y + self.linear(f"{net}.cond_embed", told))
        h = self.linear(f"{net}.input_proj", x)
        for i in range(self.plan.denoiser_depth):
            block = f"{net}.res_blocks.{i}"
            shift, scale, gate = self.linear(f"{block}.adaLN_modulation.1", y).chunk(3)
            hidden = self.norm(h, f"{block}.in_ln") * (1 + scale) + shift
            hidden = self.silu(self.linear(f"{block}.mlp.0", hidden))
            h = h + gate * self.linear(f"{block}.mlp.2", hidden)
        shift, scale = self.linear(f"{net}.final_layer.adaLN_modulation.1", y).chunk(2)
        said = self.linear(f"{net}.final_layer.linear", self.norm(h) * (1 + scale) + shift)
        noise, variance = said.chunk(2)
        return noise, variance

    def token(
        self, noise: list[Tensor], told: Tensor, null: Tensor, weight: float, temperature: float
    ) -> Tensor:
        """Drawn by Ho et al. 2020, algorithm 2, respaced, with Nichol & Dhariwal's variance."""
        abar = [math.cos((t / 1000 + 0.008) / 1.008 * math.pi / 2) ** 2 for t in range(1001)]
        betas = [min(1 - abar[t + 1] / abar[t], 0.999) for t in range(1000)]
        kept = np.cumprod([1 - beta for beta in betas])
        times = [round(i * 999 / (len(noise) - 1)) for i in range(len(noise))]
        x = noise[0].double()
        for i in reversed(range(len(times))):
            now, before = kept[times[i]], kept[times[i - 1]] if i else 1.0
            said, variance = self.denoised(x, times[i], told)
            said = self.denoised(x, times[i], null)[0] * (1 - weight) + weight * said
            beta = 1 - now / before
            x0 = x / math.sqrt(now) - math.sqrt(1 / now - 1) * said
            mean = beta * math.sqrt(before) / (1 - now) * x0
            x = mean + (1 - before) * math.sqrt(1 - beta) / (1 - now) * x
            if i:
                low = math.log(beta * (1 - before) / (1 - now))
                share = (variance + 1) / 2
                log_variance = share * math.log(beta) + (1 - share) * low
                dirt = noise[len(times) - i].double() * temperature
                x = x + (log_variance / 2).exp() * dirt
        return x


@torch.no_grad()
def test_the_networks_are_the_papers() -> None:
    plan = tiny_plan()
    state = mar_state(plan)
    network = convert(state, "tiny")
    assert network.plan == plan
    torch.manual_seed(1)
    tokens, times = torch.randn(2, plan.tokens, plan.channels), torch.tensor([3.0, 998.0])
    known = torch.tensor([[1, 5, 6], [0, 9, 15]])
    every = torch.arange(plan.tokens).expand(2, -1)
    labels = torch.tensor([2, plan.classes - 1])  # the second is the null class
    told = network(tokens, known, every, labels)
    noisy = torch.randn(2, plan.channels)
    said = network.denoiser(noisy, times, told[:, 7])
    for i, label in enumerate((2, None)):
        reference = Reference(state, plan)
        seen = {int(p): tokens[i, p].double() for p in known[i]}
        wanted = torch.stack(reference.told(seen, label))
        assert float(wanted.abs().max()) > 0.5
        np.testing.assert_allclose(told[i], wanted, atol=1e-5, rtol=1e-5)
        noise = torch.cat(reference.denoised(noisy[i].double(), float(times[i]), wanted[7]))
        assert float(noise.abs().max()) > 0.1
        np.testing.assert_allclose(said[i], noise, atol=1e-5, rtol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize(("guidance", "temperature"), [(2.9, 1.0), (1.0, 0.9)])
def test_images_are_drawn_token_by_token_in_their_own_order(
    guidance: float, temperature: float
) -> None:
    """Both images of a batch, against each by itself: 16 tokens in 6 steps of 5 diffusion steps."""
    plan, seeds = tiny_plan(), [7, 8]
    state = mar_state(plan)
    settings = SETTINGS.model_copy(update={"guidance": guidance, "temperature": temperature})
    labels = torch.tensor([0, 2])
    made = drawn_tokens(convert(state, "tiny"), labels, seeds, settings)
    masked = [15, 13, 11, 8, 4, 0]  # floor(16 cos(pi/2 s/6))
    reference, order = Reference(state, plan), permutations(seeds, plan.tokens)
    for i, seed in enumerate(seeds):
        tokens: dict[int, Tensor] = {}
        streams, before = ImageStreams([seed]), 16
        for step, after in enumerate(masked):
            told, null = reference.told(tokens, int(labels[i])), reference.told(tokens, None)
            noise = torch.from_numpy(streams.normal(5, before - after, plan.channels)[0])
            known = 16 - (after if step < 5 else 1)
            weight = 1 + (guidance - 1) * known / 16
            places = order[i, after:before]
            new = {
                int(p): reference.token(list(noise[:, j]), told[p], null[p], weight, temperature)
                for j, p in enumerate(places)
            }
            tokens, before = tokens | new, after
        wanted = torch.stack([tokens[p] for p in range(16)])
        np.testing.assert_allclose(made[i], wanted, atol=1e-5 * float(wanted.abs().max()), rtol=0)


def test_tokens_of_a_gaussian_are_drawn_from_it() -> None:
    """A denoiser that knows N(2, 0.5^2), DDPM's larger variance, 100 steps: mean and deviation."""
    table = SCHEDULE.alphas_cumprod

    def denoise(x: Tensor, t: int) -> tuple[Tensor, Tensor]:
        now = float(table[t])
        variance = now * 0.25 + 1 - now
        noise = math.sqrt(1 - now) * (x - math.sqrt(now) * 2) / variance
        return noise, torch.full_like(x, -1.0)

    settings = SETTINGS.model_copy(update={"diffusion_steps": 100})
    noise = torch.from_numpy(ImageStreams(range(50)).normal(100, 40, 2))
    found = diffused(denoise, noise, settings)
    assert found.shape == (50, 40, 2)
    assert float(found.mean()) == pytest.approx(2, abs=0.02)
    assert float(found.std()) == pytest.approx(0.5, abs=0.02)


def test_the_published_schedule_draws_every_token_once() -> None:
    left = masked_after(256, 256)
    assert left[:3] == [255, 254, 253]
    assert left[-3:] == [2, 1, 1]
    drawn = -np.diff([256, *left[:-1], 0])
    assert drawn.tolist() == [1] * 256  # the cosine lies above the line
    assert masked_after(64, 256)[31] == math.floor(256 * math.cos(math.pi / 4))
    assert masked_after(8, 3) == [2, 1, 1, 1, 1, 1, 1, 1]


def test_an_order_is_its_images_own_and_apart_from_its_noise() -> None:
    rows = permutations([3, 4, 5], 16)
    assert all(sorted(row) == list(range(16)) for row in rows)
    assert len({row.tobytes() for row in rows}) == 3
    np.testing.assert_array_equal(permutations([5, 3], 16), rows[[2, 0]])
    numbers = np.random.Generator(np.random.Philox(key=3)).permutation(16)
    assert (numbers != rows[0]).any()
    streams = ImageStreams([3, 4])
    found = image_noise([3, 4], (2, 3))
    for _ in range(2):
        np.testing.assert_array_equal(streams.normal(2, 3), next(found))


@pytest.mark.parametrize(
    ("name", "millions"), [("mar_base.pth", 208), ("mar_large.pth", 479), ("mar_huge.pth", 943)]
)
def test_full_networks_have_the_published_sizes(name: str, millions: int) -> None:
    """The README of LTH14/mar, in millions, rounded up: 207.9, 478.3 and 942.4."""
    with torch.device("meta"):
        network = MAR(PUBLISHED[name])
    assert math.ceil(sum(p.numel() for p in network.parameters()) / 1e6) == millions


def test_the_work_is_that_of_a_step_of_the_published_ones() -> None:
    work = published_work("mar_base.pth", 256)
    assert work is not None
    block = 12 * 768**2
    encoder, decoder = 2 * 12 * block * (64 + 128), 2 * 12 * block * 320
    denoiser = 2 * 100 * (5 * 6 + 3) * 1024**2
    assert encoder + decoder + denoiser < work.evaluation < 1.15 * (encoder + decoder + denoiser)
    assert work.decoding > 1e11
    assert published_work("mar_base.pth", 512) is None
    assert published_work("mar_other.pth", 256) is None
    assert (SETTINGS.own_evaluations, SETTINGS.network_evaluations) == (6, 12)


def test_every_key_is_mapped_and_others_are_named() -> None:
    state = mar_state(tiny_plan())
    network = convert(state, "tiny")
    again = authors_state(network)
    assert again.keys() == state.keys()
    assert all(torch.equal(again[key], tensor) for key, tensor in state.items())
    for key in state:
        with pytest.raises(UserError):
            convert({name: t for name, t in state.items() if name != key}, "tiny")
    for change, words in (
        ({"decoder_blocks.0.extra": torch.zeros(1)}, "has decoder_blocks.0.extra, which is not"),
        ({"mask_token": torch.zeros(1, 1, 5)}, r"mask is \(1, 1, 5\), not \(32,\)"),
        ({"decoder_norm.bias": None}, "lacks decoder_norm.bias"),
        ({"z_proj.weight": None}, "is no MAR in its authors' layout"),
        ({"diffusion_pos_embed_learned": torch.zeros(1, 15, 32)}, "is no MAR that is known here"),
    ):
        odd: dict[str, Any] = state | change
        with pytest.raises(UserError, match=words):
            convert({name: t for name, t in odd.items() if t is not None}, "tiny")


def test_a_file_is_sampled_and_what_does_not_fit_is_refused(tmp_path: Path) -> None:
    file = save_mar(tmp_path / "mar.pth")
    source = generator_source("mar")
    assert source.locate(str(file)) == file
    before = source.sha256(file)
    generator = source.load(file, compiled=False)
    batch = ImageBatch(["a", "b", "c"], [0, 2, 1], [1, 2, 3], None, 8)
    images = np.asarray(generator.sample(batch, SETTINGS))
    assert (images.shape, images.dtype) == ((3, 8, 8, 3), np.uint8)
    assert len({image.tobytes() for image in images}) == 3
    for changes, words in (
        ({"method": "ddpm"}, "needs method = 'masked-autoregressive'"),
        ({"threshold": "static"}, 'threshold = "none"'),
        ({"noise_augmentation": 0.2}, "knows no noise in parents"),
    ):
        with pytest.raises(UserError, match=words):
            generator.sample(batch, SETTINGS.model_copy(update=changes))
    with pytest.raises(UserError, match="label 3 is not among the 3 classes"):
        generator.sample(ImageBatch(["a"], [3], [1], None, 8), SETTINGS)
    torch.save({"model_ema": mar_state(tiny_plan()) | {"z_proj.weight": torch.zeros(32, 16)}}, file)
    with pytest.raises(UserError, match="does not fit its generator"):
        source.load(file, compiled=False)
    assert source.sha256(file) != before
    (tmp_path / "kl16.ckpt").unlink()
    with pytest.raises(UserError, match=r"kl16.ckpt is not on this machine"):
        source.locate(str(file))


def test_the_denoiser_alone_is_compiled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The transformer sees another number of tokens at every step."""
    compiled: list[str] = []
    monkeypatch.setattr(
        torch.nn.Module, "compile", lambda self, **_: compiled.append(type(self).__name__)
    )
    with config.patch(freezing=False):
        generator_source("mar").load(save_mar(tmp_path / "mar.pth"), compiled=True)
    assert compiled == ["TokenDenoiser"]


@pytest.mark.parametrize(
    "settings",
    [
        {"method": "masked-autoregressive", "steps": 6},
        {"method": "ddpm", "steps": 6, "diffusion_steps": 5},
        {"method": "euler", "steps": 6, "temperature": 0.9, "threshold": "none"},
    ],
)
def test_settings_without_an_effect_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match=r"diffusion_steps|temperature"):
        SamplerConfig(**settings)
    assert "diffusion_steps" not in SamplerConfig().model_dump()
