"""RIN against its paper, written anew: network, latent self-conditioning, sampling."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from generation.denoisers.learning import DenoiserObjective, Questions
from generation.denoisers.recipe import config_of
from generation.denoisers.sampling import class_denoiser
from generation.denoisers.start import planned_network
from generation.diffusion.random_numbers import ImageRandom
from generation.diffusion.schedule import NoiseSchedule
from generation.families import load_training_recipe, trainable
from generation.families.rin.network import RIN, Attention
from generation.training.data.images import DrawnImages
from release.classes.class_list import load_classes
from release.errors import UserError
from tests.models.tiny_denoisers import PROMPTS, tiny_denoiser, tiny_recipe

Tokens = np.ndarray


class Paper:
    """In float64, from a network's weights by their names."""

    def __init__(self, network: nn.Module) -> None:
        self.weights = {name: w.double().numpy() for name, w in network.state_dict().items()}

    def linear(self, name: str, x: Tokens) -> Tokens:
        return x @ self.weights[f"{name}.weight"].T + self.weights[f"{name}.bias"]

    def norm(self, name: str, x: Tokens) -> Tokens:
        centred = x - x.mean(-1, keepdims=True)
        scaled = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-6)
        return scaled * self.weights[f"{name}.weight"] + self.weights[f"{name}.bias"]

    def mlp(self, name: str, x: Tokens) -> Tokens:
        hidden = torch.from_numpy(self.linear(f"{name}.wide", self.norm(f"{name}.norm", x)))
        return x + self.linear(f"{name}.narrow", torch.nn.functional.gelu(hidden).numpy())

    def attention(self, name: str, x: Tokens, source: Tokens | None, heads: int) -> Tokens:
        normed = self.norm(f"{name}.norm", x)
        source = normed if source is None else source
        query = self.linear(f"{name}.query", normed)
        key, value = self.linear(f"{name}.key", source), self.linear(f"{name}.value", source)
        width, found = query.shape[-1] // heads, []
        for head in range(heads):
            part = slice(head * width, (head + 1) * width)
            scores = np.einsum("ntc,nsc->nts", query[..., part], key[..., part]) / np.sqrt(width)
            scores = np.exp(scores - scores.max(-1, keepdims=True))
            scores /= scores.sum(-1, keepdims=True)
            found.append(np.einsum("nts,nsc->ntc", scores, value[..., part]))
        return x + self.linear(f"{name}.out", np.concatenate(found, -1))

    def __call__(
        self, x: Tokens, log_snr: Tokens, condition: list[int], before: Tokens | None
    ) -> tuple[Tokens, Tokens]:
        """16 px, patches of 4, 6 latents of 16 channels, blocks of 1 and 2 layers."""
        x = x / x.reshape(len(x), -1).std(axis=1, ddof=1)[:, None, None, None]  # input scale 0.5
        n, c = x.shape[:2]
        patches = x.reshape(n, c, 4, 4, 4, 4).transpose(
            0, 2, 4, 1, 3, 5
        )  # n, rows, columns, c, 4, 4
        weight = self.weights["enter.weight"]
        interface = np.einsum("nrqcij,dcij->nrqd", patches, weight).reshape(n, 16, -1)
        interface = self.norm("enter_norm", interface + self.weights["enter.bias"])
        interface = interface + self.weights["place"]
        angles = 1e3 / (1 + np.exp(-log_snr))[:, None] * np.array([1.0, 1e-2])
        waves = np.concatenate([np.sin(angles), np.cos(angles)], 1)
        waves = (waves - waves.mean(1, keepdims=True)) / waves.std(1, keepdims=True)
        level = self.linear("level.first", waves)
        level = self.linear("level.second", level / (1 + np.exp(-level)))
        classes = np.stack([np.eye(3)[i] if i < 3 else np.zeros(3) for i in condition])
        told = np.stack([level, self.linear("classes", classes)], 1)
        latents = np.concatenate([np.repeat(self.weights["latents"], n, 0), told], 1)
        before = np.zeros_like(latents) if before is None else before
        latents = latents + self.norm("before_norm", self.mlp("before", before))
        for i, layers in enumerate((1, 2)):
            latents = self.attention(f"blocks.{i}.read", latents, interface, 2)
            latents = self.mlp(f"blocks.{i}.read_mlp", latents)
            for j in range(layers):
                latents = self.attention(f"blocks.{i}.attend.{j}", latents, None, 4)
                latents = self.mlp(f"blocks.{i}.attend_mlp.{j}", latents)
            interface = self.attention(f"blocks.{i}.write", interface, latents, 2)
            interface = self.mlp(f"blocks.{i}.write_mlp", interface)
        said = self.linear("leave", self.norm("leave_norm", interface))
        said = said.reshape(n, 4, 4, c, 4, 4).transpose(0, 3, 1, 4, 2, 5)
        return said.reshape(x.shape), latents


def test_attention_begins_as_keras_draws_kernels_of_several_heads() -> None:
    """glorot_uniform of (D, H, K) and (H, K, D): the axes before the last two are a field."""

    def bound(*shape: int) -> float:
        field = math.prod(shape[:-2])
        return math.sqrt(6 / (field * (shape[-2] + shape[-1])))

    torch.manual_seed(0)
    attention = Attention(width=256, source_width=96, inner=64, heads=4)
    attention.initialize()
    for layer, expected in (
        (attention.query, bound(256, 4, 16)),
        (attention.key, bound(96, 4, 16)),
        (attention.value, bound(96, 4, 16)),
        (attention.out, bound(4, 16, 256)),
    ):
        weight = layer.weight.detach()
        assert 0.99 * expected < float(weight.abs().max()) <= expected
        assert float(weight.std()) == pytest.approx(expected / math.sqrt(3), rel=0.03)
    network = RIN(config_of(tiny_recipe("rin"), PROMPTS, 3))
    for module in (m for m in network.modules() if isinstance(m, Attention)):
        inner, width = module.query.weight.shape
        assert module.query.weight.abs().max() <= bound(width, module.heads, inner // module.heads)


def test_a_network_says_what_the_paper_says() -> None:
    network = tiny_denoiser("rin")
    x = torch.randn(4, 3, 16, 16, generator=torch.Generator().manual_seed(3))
    log_snr, condition = torch.tensor([-6.0, -1.0, 2.0, 5.0]), [0, 1, 2, 3]
    before = None
    paper = Paper(network)
    carried = None
    for _ in range(2):  # without latents of a call before, then with them
        said, carried = network(x, log_snr, torch.tensor(condition), None, carried)
        expected, before = paper(x.double().numpy(), log_snr.double().numpy(), condition, before)
        # TIME_SCALE makes an angle of 1e3 of which float32 knows five digits
        assert abs(said.numpy() - expected).max() <= 1e-5 * max(1, abs(expected).max()) * 10
        np.testing.assert_allclose(carried.numpy(), before, atol=1e-3)
    double = network.double()
    said, carried = double(x.double(), log_snr.double(), torch.tensor(condition))
    expected, before = paper(x.double().numpy(), log_snr.double().numpy(), condition, None)
    assert abs(said.numpy() - expected).max() <= 1e-5
    assert abs(carried.numpy() - before).max() <= 1e-5
    again, _ = double(x.double(), log_snr.double(), torch.tensor(condition), None, carried)
    assert (again - said).abs().max() > 1e-2


class Noted(nn.Module):
    """A network whose calls are noted."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network, self.calls = network, []

    def forward(self, *asked: Any) -> tuple[Tensor, Tensor]:
        said, latents = self.network(*asked)
        self.calls.append((*asked, latents, torch.is_grad_enabled()))
        return said, latents


def test_the_loss_is_of_latents_of_a_first_pass_without_gradient() -> None:
    recipe = tiny_recipe("rin", training={"self_conditioning": 0.6})
    network = Noted(tiny_denoiser("rin").requires_grad_(True))
    rng = np.random.default_rng(5)
    images = torch.from_numpy(rng.integers(0, 256, (8, 3, 16, 16), dtype=np.uint8))
    classes = [0, 1, 2, 0, 1, 2, 0, 1]
    drawn = DrawnImages(images, None, torch.tensor(classes), ImageRandom(7, 0, torch.arange(8)))
    loss = trainable("rin").family.loss(recipe)
    found = loss(network, drawn, Questions(recipe, len(PROMPTS)))
    found.backward()

    rng = ImageRandom(7, 0, torch.arange(8))
    steps = rng.integers(100).numpy()
    noise = rng.normal(*images.shape[1:]).double().numpy()
    dropped, begun = rng.uniform().numpy() < 0.1, rng.uniform().numpy() < 0.6
    abar = (1 - (steps + 1) / 100).clip(1e-9)[:, None, None, None]
    assert (abar > 1e-6).all()
    x = np.sqrt(abar) * 0.5 * (images.numpy() / 127.5 - 1) + np.sqrt(1 - abar) * noise
    told = np.where(dropped, 3, classes).tolist()
    log_snr = (np.log(abar) - np.log1p(-abar)).ravel()
    paper = Paper(network.network)
    _, latents = paper(x, log_snr, told, None)
    said, _ = paper(x, log_snr, told, latents * begun[:, None, None])
    assert float(found.detach()) == pytest.approx(((said - noise) ** 2).mean(), rel=1e-3)
    first, second = network.calls
    assert first[4] is None
    assert (first[-1], second[-1]) == (False, True)
    given = second[4]
    assert not given.requires_grad
    torch.testing.assert_close(given[torch.from_numpy(begun)], first[5][torch.from_numpy(begun)])
    assert (given[torch.from_numpy(~begun)] == 0).all()
    assert 0 < begun.sum() < 8


def test_weights_learn_in_bfloat16_after_a_pass_without_gradient() -> None:
    """Autocast keeps weights it has converted, and those of the first pass have no gradient."""
    recipe = tiny_recipe("rin", training={"self_conditioning": 1.0})
    network = tiny_denoiser("rin")
    objective = DenoiserObjective(network, recipe, trainable("rin").family.loss(recipe))
    images = torch.zeros(8, 3, 16, 16, dtype=torch.uint8)
    drawn = DrawnImages(images, None, torch.arange(8) % 3, ImageRandom(7, 0, torch.arange(8)))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        objective.updates[0].loss(objective.modules, drawn).backward()
    still = [n for n, p in network.named_parameters() if p.grad is None or not p.grad.any()]
    assert still == []


@pytest.mark.parametrize("guidance", [1.0, 2.0])
def test_a_sampler_begins_each_step_with_the_latents_of_the_one_before(guidance: float) -> None:
    network = tiny_denoiser("rin")
    schedule = NoiseSchedule(network.config.stage.schedule)
    condition = torch.tensor([0, 2])
    denoise = class_denoiser(network, schedule, condition, guidance, None)
    latents: list[Tensor | None] = [None, None]
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for t in (99, 50, 3):
            x = torch.randn(2, 3, 16, 16, generator=generator)
            level = torch.full((2,), float(schedule.log_snr[t]))
            told, latents[0] = network(x, level, condition, None, latents[0])
            null, latents[1] = network(x, level, torch.tensor([3, 3]), None, latents[1])
            found, _ = denoise(x, t)
            torch.testing.assert_close(found, null + guidance * (told - null), atol=1e-4, rtol=1e-4)


def test_new_latents_are_not_told_of_those_before() -> None:
    recipe = tiny_recipe("rin")
    family = trainable("rin").family
    from generation.denoisers.recipe import config_of

    network = family.network(config_of(recipe, PROMPTS, 3))
    x, level, condition = torch.randn(2, 3, 16, 16), torch.zeros(2), torch.tensor([0, 1])
    said, latents = network(x, level, condition)
    assert torch.equal(network(x, level, condition, None, latents + 1)[0], said)


def test_a_linear_signal_is_what_its_name_says() -> None:
    recipe = load_training_recipe("imagenet-rin-noise-schedule-256")
    schedule = NoiseSchedule(recipe.stage.schedule)
    assert schedule.input_scale == 0.5
    expected = 1 - (np.arange(1000) + 1) / 1000
    np.testing.assert_allclose(schedule.alphas_cumprod[:-1], expected[:-1], rtol=1e-9)


@pytest.mark.parametrize(
    ("name", "count"),
    [  # published: 281 M at 64 px, 410 M at 256 px; the recipes say what is known of the rest
        ("imagenet-rin-64", 267_186_736),
        ("imagenet-rin-noise-schedule-64", 267_186_736),
        ("imagenet-rin-256", 395_928_256),
        ("imagenet-rin-noise-schedule-256", 395_928_256),
    ],
)
def test_the_parameters_of_the_imagenet_recipes(name: str, count: int) -> None:
    recipe = load_training_recipe(name)
    prompts = tuple(entry.prompt for entry in load_classes(recipe.classes))
    network = planned_network(trainable(recipe.generator).family, recipe, prompts)
    assert sum(p.numel() for p in network.parameters()) == count


def test_a_recipe_that_cannot_be_is_refused() -> None:
    with pytest.raises(ValueError, match="patch 5 does not divide"):
        tiny_recipe("rin", network={"patch": 5})
    with pytest.raises(ValueError, match="enlarges no parent"):
        tiny_recipe("rin", stage={"low_resolution": 8})
    with pytest.raises(UserError, match="3 heads do not divide 16 channels"):
        trainable("rin").memory(tiny_recipe("rin", network={"heads": 3}), 1)
