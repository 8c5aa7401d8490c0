"""DiT against its paper's formulation, written here from the equations, and its published size."""

import math
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import DiTTransformer2DModel
from torch import Tensor
from torch._inductor import config as inductor_config

from generation.diffusion.noise import image_noise
from generation.diffusion.sampler import sample
from generation.diffusion.sampler_config import SamplerConfig
from generation.diffusion.schedule import NoiseSchedule, ScheduleConfig
from generation.families import generator_source
from generation.families.dit.sampling import DiT, embed_times_as_trained, guided_denoiser
from generation.generator import ImageBatch
from generation.networks.placement import Placement
from release.errors import UserError
from tests.models.tiny_models import CLASSES, save_dit, tiny_dit

LINEAR = NoiseSchedule(ScheduleConfig(name="linear"))
SETTINGS = SamplerConfig(steps=4, guidance=1.5, threshold="none")
PAPER = SamplerConfig(steps=250, guidance=1.5, threshold="none")
LABELS = [2, 0]
BATCH = ImageBatch(["a", "b", "a"], [0, 1, 2], [11, 22, 33], None, 8)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_dit(tmp_path_factory.mktemp("models") / "dit")


# ---------------------------------------------------------------- the formulation


class Reference:
    """DiT with adaLN-Zero (Peebles & Xie 2023, sections 3.1 and 3.2), on diffusers' weights."""

    def __init__(self, weights: dict[str, Tensor], heads: int, blocks: int) -> None:
        self.weights, self.heads, self.blocks = weights, heads, blocks

    def linear(self, name: str, x: Tensor) -> Tensor:
        return x @ self.weights[f"{name}.weight"].T + self.weights[f"{name}.bias"]

    def condition(self, t: Tensor, y: Tensor) -> Tensor:
        """256 frequencies of time, two layers; plus the class's row."""
        name = "transformer_blocks.0.norm1.emb"
        angles = t[:, None] * 10000.0 ** (-torch.arange(128) / 128)
        time = torch.cat([angles.cos(), angles.sin()], dim=1)
        time = self.linear(f"{name}.timestep_embedder.linear_1", time)
        time = self.linear(f"{name}.timestep_embedder.linear_2", time * time.sigmoid())
        return time + self.weights[f"{name}.class_embedder.embedding_table.weight"][y]

    def attention(self, name: str, x: Tensor) -> Tensor:
        q, k, v = (
            self.linear(f"{name}.to_{part}", x).unflatten(2, (self.heads, -1)) for part in "qkv"
        )
        scores = torch.einsum("nihd,njhd->nhij", q, k) / math.sqrt(q.shape[-1])
        mixed = torch.einsum("nhij,njhd->nihd", scores.softmax(-1), v).flatten(2)
        return self.linear(f"{name}.to_out.0", mixed)

    def __call__(self, x: Tensor, t: Tensor, y: Tensor) -> Tensor:
        n, c, side, _ = x.shape
        grid = side // 2
        kernel = self.weights["pos_embed.proj.weight"]
        patches = x.reshape(n, c, grid, 2, grid, 2).permute(0, 2, 4, 1, 3, 5).reshape(n, -1, c * 4)
        h = patches @ kernel.flatten(1).T + self.weights["pos_embed.proj.bias"]
        h = h + sine_cosine_positions(grid, h.shape[-1])
        condition = self.condition(t.float(), y)
        active = condition * condition.sigmoid()
        for i in range(self.blocks):
            name = f"transformer_blocks.{i}"
            parts = self.linear(f"{name}.norm1.linear", active)[:, None].chunk(6, dim=2)
            shift, scale, gate, shift_mlp, scale_mlp, gate_mlp = parts
            h = h + gate * self.attention(f"{name}.attn1", centred(h) * (1 + scale) + shift)
            hidden = self.linear(f"{name}.ff.net.0.proj", centred(h) * (1 + scale_mlp) + shift_mlp)
            h = h + gate_mlp * self.linear(f"{name}.ff.net.2", gelu(hidden))
        shift, scale = self.linear("proj_out_1", active)[:, None].chunk(2, dim=2)
        out = self.linear("proj_out_2", centred(h) * (1 + scale) + shift)
        out = out.reshape(n, grid, grid, 2, 2, -1).permute(0, 5, 1, 3, 2, 4)
        return out.reshape(n, -1, side, side)


def centred(x: Tensor) -> Tensor:
    mean, variance = x.mean(-1, keepdim=True), x.var(-1, keepdim=True, unbiased=False)
    return (x - mean) / torch.sqrt(variance + 1e-6)


def gelu(x: Tensor) -> Tensor:
    """The tanh form of Hendrycks & Gimpel 2016."""
    return x / 2 * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


def sine_cosine_positions(grid: int, width: int) -> Tensor:
    """As MAE's: half of the width for the column, half for the row, sines before cosines."""
    quarter = width // 4
    frequencies = 10000.0 ** (-torch.arange(quarter, dtype=torch.float64) / quarter)
    rows, columns = torch.meshgrid(torch.arange(grid), torch.arange(grid), indexing="ij")
    angles = [place.flatten()[:, None] * frequencies for place in (columns, rows)]
    return torch.cat([f(a) for a in angles for f in (torch.sin, torch.cos)], dim=1).float()


def reference_states(network: Reference, noise: list[Tensor], steps: int) -> list[Tensor]:
    """x before each step of respaced DDPM with learned variance and guidance, then x0.

    Nichol & Dhariwal 2021: the respaced betas of section 4 (strided as their code rounds), the
    posterior of eq. 10 and 12, the variance of eq. 15; guidance as DiT's code: 3 channels.
    """
    betas = np.linspace(1e-4, 0.02, 1000)
    bar = np.cumprod(1 - betas)
    times = [round(i * 999 / (steps - 1)) for i in range(steps)]
    x, states = noise[0], [noise[0]]
    labels, null = torch.tensor(LABELS), torch.full((2,), CLASSES)
    for i in reversed(range(steps)):
        now, before = bar[times[i]], bar[times[i - 1]] if i else 1.0
        beta = 1 - now / before
        t = torch.full((2,), times[i])
        conditional, unconditional = network(x, t, labels), network(x, t, null)
        eps, fraction = conditional[:, :4].clone(), (conditional[:, 4:] + 1) / 2
        eps[:, :3] = 1.5 * conditional[:, :3] - 0.5 * unconditional[:, :3]
        x0 = math.sqrt(1 / now) * x - math.sqrt(1 / now - 1) * eps
        x = (
            beta * math.sqrt(before) / (1 - now) * x0
            + (1 - before) * math.sqrt(1 - beta) / (1 - now) * x
        )
        if i:
            small = math.log(beta * (1 - before) / (1 - now))
            log_variance = fraction * math.log(beta) + (1 - fraction) * small
            x = x + torch.exp(log_variance / 2) * noise[steps - i]
        states.append(x)
    return states


@torch.no_grad()
def test_each_step_is_the_papers() -> None:
    """25 respaced steps of guided DDPM; the network and the loop against equations, from one noise.

    The largest difference allowed is 1e-5 of the state's own size at each step.
    """
    torch.manual_seed(1)
    transformer = embed_times_as_trained(tiny_dit())
    reference = Reference(transformer.state_dict(), heads=2, blocks=2)
    source = image_noise([5, 6], (4, 4, 4))
    noise = [torch.from_numpy(next(source).copy()) for _ in range(25)]
    expected = reference_states(reference, noise, 25)
    denoise = guided_denoiser(transformer, torch.tensor(LABELS), 1.5, torch.float32)
    states: list[Tensor] = []

    def recorded(x: Tensor, t: int) -> tuple[Tensor, Tensor | None]:
        states.append(x)
        return denoise(x, t)

    draws = iter(noise)
    settings = SETTINGS.model_copy(update={"steps": 25})
    states.append(sample(recorded, LINEAR, "epsilon", settings, lambda: next(draws)))
    assert len(states) == len(expected) == 26
    for made, wanted in zip(states, expected, strict=True):
        scale = float(wanted.abs().max().clamp(min=1))
        assert float((made - wanted).abs().max()) / scale < 1e-5


@torch.no_grad()
def test_diffusers_own_frequencies_are_others() -> None:
    """Why they are set: untouched, the network is not the published one."""
    torch.manual_seed(1)
    transformer = tiny_dit()
    x, t, y = torch.randn(1, 4, 4, 4), torch.tensor([500]), torch.tensor([1])
    reference = Reference(transformer.state_dict(), heads=2, blocks=2)(x, t, y)
    untouched = transformer(x, t, y, return_dict=False)[0]
    assert float((untouched - reference).abs().max()) > 1e-3
    corrected = embed_times_as_trained(transformer)(x, t, y, return_dict=False)[0]
    torch.testing.assert_close(corrected, reference, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("side", [32, 64])
def test_the_full_network_has_the_published_size(side: int) -> None:
    """DiT-XL/2's 675 M (Peebles & Xie 2023, table 4).

    diffusers gives each of the 28 blocks an embedder of its own, copies of one: 27 are left out.
    What the paper's code counts beside them, the fixed positions, is no parameter of diffusers'.
    """
    with torch.device("meta"):
        transformer = DiTTransformer2DModel(sample_size=side, out_channels=8)
    count = sum(p.numel() for p in transformer.parameters())
    embedder = sum(p.numel() for p in transformer.transformer_blocks[0].norm1.emb.parameters())
    assert len(transformer.transformer_blocks) == 28
    positions = (side // 2) ** 2 * 1152
    assert round((count - 27 * embedder) / 1e6) == 675
    if side == 32:
        assert count - 27 * embedder + positions == 675_129_632  # what the paper's code prints


# ---------------------------------------------------------------- the adapter


def test_an_image_depends_on_its_own_row_alone(folder: Path) -> None:
    source = generator_source("dit")
    generator = source.load(source.locate(str(folder)), compiled=False)
    images = generator.sample(BATCH, SETTINGS)
    assert images.shape == (3, 8, 8, 3)
    assert images.dtype == np.uint8
    assert len({image.tobytes() for image in images}) == 3
    for change in (
        ImageBatch(BATCH.prompts, [0, 1, 2], [11, 99, 33], None, 8),
        ImageBatch(BATCH.prompts, [0, 0, 2], [11, 22, 33], None, 8),
    ):
        other = generator.sample(change, SETTINGS)
        assert (other != images).any(axis=(1, 2, 3)).tolist() == [False, True, False]
    turned = ImageBatch(["a", "b", "a"], [2, 1, 0], [33, 22, 11], None, 8)
    np.testing.assert_array_equal(generator.sample(turned, SETTINGS)[::-1], images)


def test_bfloat16_stays_close(folder: Path) -> None:
    full = DiT(folder, Placement("cpu", torch.float32)).sample(BATCH, SETTINGS).astype(int)
    half = DiT(folder, Placement("cpu", torch.bfloat16)).sample(BATCH, SETTINGS)
    assert 0 < np.abs(half - full).mean() < 8


def test_compiling_is_asked_for_the_one_shape(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The compiler itself is not run here: it takes longer than all these tests."""
    asked: list[tuple[str, dict[str, object]]] = []

    def compile_it(network: torch.nn.Module, **settings: object) -> None:
        asked.append((type(network).__name__, settings))

    monkeypatch.setattr(torch.nn.Module, "compile", compile_it)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with inductor_config.patch(freezing=False):
        generator_source("dit").load(folder, compiled=False)
        assert asked == []
        generator_source("dit").load(folder, compiled=True)
        assert asked == [("DiTTransformer2DModel", {"dynamic": False})]
        assert inductor_config.freezing  # for the whole process: the tracer has to know


def test_pickled_weights_are_read_and_their_code_is_not(folder: Path, tmp_path: Path) -> None:
    """As the Hub has DiT: diffusion_pytorch_model.bin alone."""
    old = shutil.copytree(folder, tmp_path / "old")
    weights = old / "transformer" / "diffusion_pytorch_model.safetensors"
    weights.unlink()
    transformer = DiTTransformer2DModel.from_pretrained(folder / "transformer")
    torch.save(transformer.state_dict(), weights.with_suffix(".bin"))
    source = generator_source("dit")
    images = source.load(source.locate(str(old)), compiled=False).sample(BATCH, SETTINGS)
    expected = source.load(folder, compiled=False).sample(BATCH, SETTINGS)
    np.testing.assert_array_equal(images, expected)
    torch.save({"weight": Path("code")}, weights.with_suffix(".bin"))
    with pytest.raises(Exception, match=r"Weights only load failed|Unable to load weights"):
        source.load(old, compiled=False)


@pytest.mark.parametrize(
    ("batch", "changes", "message"),
    [
        (ImageBatch(["a"], [CLASSES], [1], None, 8), {}, "label 3 is not among the 3 classes"),
        (ImageBatch(["a"], [0], [1], np.zeros((1, 4, 4, 3)), 8), {}, "must be a first stage"),
        (ImageBatch(["a"], [0], [1], None, 8), {"gamma": 0.5}, "learned its variance"),
        (ImageBatch(["a"], [0], [1], None, 8), {"threshold": "static"}, 'needs threshold = "none"'),
    ],
)
def test_what_does_not_fit_is_refused(
    folder: Path, batch: ImageBatch, changes: dict[str, object], message: str
) -> None:
    generator = generator_source("dit").load(folder, compiled=False)
    with pytest.raises(UserError, match=message):
        generator.sample(batch, SETTINGS.model_copy(update=changes))


def test_250_steps_are_respaced_as_the_papers_code_does() -> None:
    from generation.diffusion.steps import sampling_steps

    stride = 999 / 249
    assert sampling_steps(LINEAR, PAPER) == [round(i * stride) for i in reversed(range(250))]
