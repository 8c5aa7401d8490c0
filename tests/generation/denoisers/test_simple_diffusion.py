"""Simple Diffusion against its paper, written anew: networks, wavelet, losses."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from generation.denoisers.learning import Questions
from generation.denoisers.recipe import config_of
from generation.denoisers.start import planned_network
from generation.diffusion.random_numbers import ImageRandom
from generation.families import load_training_recipe, trainable
from generation.families.simple_diffusion.wavelet import from_bands, to_bands
from generation.training.data.images import DrawnImages
from release.classes.class_list import load_classes
from release.errors import UserError
from tests.models.tiny_denoisers import PROMPTS, tiny_denoiser, tiny_recipe

Weights = dict[str, Tensor]


class Paper:
    """The layers as functions of a network's weights, by their names."""

    def __init__(self, network: nn.Module, groups: int, heads: int) -> None:
        self.weights: Weights = network.state_dict()
        self.groups, self.heads = groups, heads

    def has(self, name: str) -> bool:
        return any(known.startswith(name + ".") for known in self.weights)

    def linear(self, name: str, x: Tensor) -> Tensor:
        return x @ self.weights[f"{name}.weight"].T + self.weights[f"{name}.bias"]

    def conv(self, name: str, x: Tensor, stride: int = 1) -> Tensor:
        weight = self.weights[f"{name}.weight"]
        return F.conv2d(x, weight, self.weights[f"{name}.bias"], stride, weight.shape[2] // 2)

    def group_norm(self, name: str, x: Tensor) -> Tensor:
        n, c = x.shape[:2]
        grouped = x.reshape(n, np.gcd(self.groups, c), -1)
        mean = grouped.mean(2, keepdim=True)
        variance = ((grouped - mean) ** 2).mean(2, keepdim=True)
        flat = ((grouped - mean) / torch.sqrt(variance + 1e-6)).reshape(n, c, -1)
        scaled = flat * self.weights[f"{name}.weight"][:, None]
        return (scaled + self.weights[f"{name}.bias"][:, None]).reshape(x.shape)

    def layer_norm(self, name: str, x: Tensor) -> Tensor:
        mean = x.mean(-1, keepdim=True)
        variance = ((x - mean) ** 2).mean(-1, keepdim=True)
        scaled = (x - mean) / torch.sqrt(variance + 1e-6) * self.weights[f"{name}.weight"]
        return scaled + self.weights[f"{name}.bias"]

    def embedding(self, name: str, log_snr: Tensor, condition: Tensor, base: int) -> Tensor:
        level = 1000 * (log_snr + 10) / 20
        angles = [level * 10000 ** (-i / (base // 2 - 1)) for i in range(base // 2)]
        waves = torch.stack([f(a) for f in (torch.sin, torch.cos) for a in angles], dim=1)
        hidden = self.linear(f"{name}.first", waves)
        hidden = hidden * torch.sigmoid(hidden)
        return (
            self.linear(f"{name}.second", hidden)
            + self.weights[f"{name}.classes.weight"][condition]
        )

    def residual(self, name: str, x: Tensor, h: Tensor) -> Tensor:
        y = self.conv(f"{name}.conv1", swish(self.group_norm(f"{name}.norm1", x)))
        film = self.linear(f"{name}.film", swish(h))
        c = y.shape[1]
        scale, shift = film[:, :c, None, None], film[:, c:, None, None]
        y = swish(self.group_norm(f"{name}.norm2", y) * (1 + scale) + shift)
        skip = self.conv(f"{name}.skip", x) if self.has(f"{name}.skip") else x
        return skip + self.conv(f"{name}.conv2", y)

    def attention(self, name: str, x: Tensor) -> Tensor:
        """On tokens N, T, C."""
        normed = self.group_norm(f"{name}.norm", x.mT).mT
        query, key, value = self.linear(f"{name}.qkv", normed).chunk(3, dim=2)
        width = x.shape[2] // self.heads
        found = []
        for head in range(self.heads):
            part = slice(head * width, (head + 1) * width)
            scores = query[..., part] @ key[..., part].mT / width**0.5
            found.append(torch.softmax(scores, dim=2) @ value[..., part])
        return x + self.linear(f"{name}.out", torch.cat(found, dim=2))

    def attention_on(self, name: str, x: Tensor) -> Tensor:
        n, c, side, _ = x.shape
        return self.attention(name, x.reshape(n, c, -1).mT).mT.reshape(n, c, side, side)


def swish(x: Tensor) -> Tensor:
    return x * torch.sigmoid(x)


def twice(x: Tensor) -> Tensor:
    return x.repeat_interleave(2, 2).repeat_interleave(2, 3)


def unet_of_the_paper(network: Any, x: Tensor, log_snr: Tensor, condition: Tensor) -> Tensor:
    """Two levels, 1 and 2 blocks; the second has attention; bands of one wavelet level."""
    p = Paper(network, 32, 2)
    h = p.embedding("embedding", log_snr, condition, 8)
    y0 = p.conv("body.enter", to_bands(x, 1))
    y1 = p.residual("body.down.0.residual", y0, h)
    y2 = p.conv("body.halve.0.layer", y1, stride=2)
    y3 = p.attention_on("body.down.1.attention", p.residual("body.down.1.residual", y2, h))
    y4 = p.attention_on("body.down.2.attention", p.residual("body.down.2.residual", y3, h))
    z = p.attention_on("body.middle_attention", p.residual("body.middle.0", y4, h))
    z = p.residual("body.middle.1", z, h)
    for i, kept in enumerate((y4, y3, y2)):
        z = p.residual(f"body.up.{i}.residual", torch.cat([z, kept], 1), h)
        z = p.attention_on(f"body.up.{i}.attention", z)
    z = p.conv("body.enlarge.0.layer.conv", twice(z))
    for i, kept in enumerate((y1, y0), 3):
        z = p.residual(f"body.up.{i}.residual", torch.cat([z, kept], 1), h)
    return from_bands(p.conv("body.leave", swish(p.group_norm("body.norm", z))), 1)


def uvit_of_the_paper(network: Any, x: Tensor, log_snr: Tensor, condition: Tensor) -> Tensor:
    """Levels of 2 and 1 blocks, then two transformer blocks."""
    p = Paper(network, 32, 2)
    h = p.embedding("embedding", log_snr, condition, 8)
    y0 = p.residual("down.0.0", p.conv("enter", x), h)
    y1 = p.residual("down.0.1", y0, h)
    y2 = p.residual("down.1.0", p.conv("halve.0", y1, stride=2), h)
    low = p.conv("halve.1", y2, stride=2)
    n, c, side, _ = low.shape
    tokens = p.linear("widen", low.reshape(n, c, -1).mT) + network.place
    for i in range(2):
        name = f"transformer.{i}"
        tokens = p.attention(f"{name}.attention", tokens)
        film = p.linear(f"{name}.film", swish(h))[:, None]
        scale, shift = film.chunk(2, dim=2)
        y = p.linear(f"{name}.wide", p.layer_norm(f"{name}.norm", tokens) * (1 + scale) + shift)
        y = y * (1 + torch.erf(y / 2**0.5)) / 2
        tokens = tokens + p.linear(f"{name}.narrow", y)
    z = p.linear("narrow", p.layer_norm("token_norm", tokens)).mT.reshape(n, c, side, side)
    z = p.residual("up.0.0", torch.cat([p.conv("enlarge.0.conv", twice(z)), y2], 1), h)
    z = p.conv("enlarge.1.conv", twice(z))
    z = p.residual("up.1.0", torch.cat([z, y1], 1), h)
    z = p.residual("up.1.1", torch.cat([z, y0], 1), h)
    return p.conv("leave", swish(p.group_norm("norm", z)))


@pytest.mark.parametrize(
    ("kind", "paper"), [("unet", unet_of_the_paper), ("uvit", uvit_of_the_paper)]
)
def test_a_network_says_what_the_paper_says(kind: str, paper: Any) -> None:
    network = tiny_denoiser(kind)
    assert not network.state_dict().keys() & {"config"}
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(4, 3, 16, 16, generator=generator)
    log_snr, condition = torch.tensor([-9.0, -1.0, 2.0, 8.0]), torch.tensor([0, 1, 2, 3])
    said, carried = network(x, log_snr, condition)
    assert carried is None
    expected = paper(network, x, log_snr, condition)
    assert said.std() > 0.1
    assert (said - expected).abs().max() <= 1e-5 * expected.abs().max()
    for changed in ((x, log_snr + 1, condition), (x, log_snr, condition.flip(0))):
        assert (network(*changed)[0] - said).abs().max() > 1e-3


def test_the_wavelet_is_that_of_le_gall_and_is_inverted() -> None:
    x = torch.randn(2, 3, 16, 16, dtype=torch.float64)
    bands = to_bands(x, 2)
    assert bands.shape == (2, 48, 4, 4)
    torch.testing.assert_close(from_bands(bands, 2), x, rtol=0, atol=1e-12)
    low = np.array([-1, 2, 6, 2, -1]) / 8  # its analysis filters
    high = np.array([-1, 2, -1]) / 2
    padded = F.pad(x, (4, 4, 4, 4), mode="reflect").numpy()
    rows = {"low": (low, 0), "high": (high, 1)}

    def filtered(image: np.ndarray, taps: np.ndarray, shift: int, axis: int) -> np.ndarray:
        starts = 4 + shift + 2 * np.arange(8) - len(taps) // 2
        return sum(t * np.take(image, starts + i, axis=axis) for i, t in enumerate(taps))

    one = to_bands(x, 1)
    for i, (down, across) in enumerate(
        [("low", "low"), ("high", "low"), ("low", "high"), ("high", "high")]
    ):
        expected = filtered(filtered(padded, *rows[down], axis=2), *rows[across], axis=3)
        np.testing.assert_allclose(one[:, 3 * i : 3 * i + 3].numpy(), expected, atol=1e-12)


class Fixed(nn.Module):
    """Says what it was given to say, and notes what it was asked."""

    def __init__(self, said: Tensor) -> None:
        super().__init__()
        self.said = said

    def forward(self, x: Tensor, log_snr: Tensor, *told: Any) -> tuple[Tensor, None]:
        self.asked = (x, log_snr, *told)
        return self.said, None


@pytest.mark.parametrize(
    "training",
    [
        {"error": "epsilon", "multiscale": None},
        {"error": "v", "multiscale": None},
        {"error": "epsilon", "multiscale": 4},
        {"error": "v", "multiscale": 8},
    ],
)
def test_the_loss_is_that_of_the_paper(training: dict[str, Any]) -> None:
    recipe = tiny_recipe("unet", training=training)
    rng = np.random.default_rng(5)
    images = rng.integers(0, 256, (6, 3, 16, 16), dtype=np.uint8)
    said = rng.standard_normal((6, 3, 16, 16)).astype(np.float32)
    network = Fixed(torch.from_numpy(said))
    drawn = DrawnImages(
        torch.from_numpy(images),
        None,
        torch.tensor([0, 1, 2, 0, 1, 2]),
        ImageRandom(7, 0, torch.arange(6)),
    )
    loss = trainable("simple-diffusion").family.loss(recipe)
    found = loss(network, drawn, Questions(recipe, len(PROMPTS)))

    again = ImageRandom(7, 0, torch.arange(6))  # float64, in terms of alpha, sigma, epsilon
    steps = again.integers(100).numpy()
    epsilon = again.normal(*images.shape[1:]).double().numpy()
    dropped = again.uniform().numpy() < 0.1
    times = (np.arange(100) + 1) / 100
    log_snr = -2 * np.log(np.tan(np.pi * np.minimum(times, 1 - 1e-6) / 2)) + 2 * np.log(64 / 16)
    log_snr = log_snr[steps].reshape(6, 1, 1, 1)
    x = images / 127.5 - 1
    last = (steps == 99).reshape(6, 1, 1, 1)
    alpha, sigma = (np.sqrt(1 / (1 + np.exp(sign * log_snr))) for sign in (-1, 1))
    assert not last.any()
    z, v = alpha * x + sigma * epsilon, alpha * epsilon - sigma * x
    np.testing.assert_allclose(network.asked[0].numpy(), z, atol=1e-5)
    np.testing.assert_allclose(network.asked[1].numpy(), log_snr.ravel(), rtol=1e-5, atol=1e-5)
    assert network.asked[2].tolist() == np.where(dropped, 3, [0, 1, 2, 0, 1, 2]).tolist()
    said = said.astype(np.float64)
    error = (sigma * z + alpha * said) - epsilon if training["error"] == "epsilon" else said - v
    least = training["multiscale"]
    sides = [16] if least is None else [s for s in (4, 8, 16) if s >= least]
    expected = 0.0
    for s in sides:
        pooled = error.reshape(6, 3, s, 16 // s, s, 16 // s).mean(axis=(3, 5))
        expected += (pooled**2).mean() / (1 if least is None else s)
    assert float(found) == pytest.approx(expected, rel=1e-5)


def test_dropout_stands_in_low_levels_alone() -> None:
    network = tiny_denoiser("unet", network={"multipliers": [1, 1], "blocks": [1, 1]})
    named = network.get_submodule("body").named_modules()
    rates = {name.removesuffix(".dropout"): m.p for name, m in named if isinstance(m, nn.Dropout)}
    high = {rate for name, rate in rates.items() if name.startswith(("down.0", "up.2", "up.3"))}
    assert high == {0}
    assert {rates[name] for name in ("down.1.residual", "middle.0", "up.0.residual")} == {0.2}


@pytest.mark.parametrize(
    ("name", "count"),
    [  # published: 2 B for U-ViT L; none for the U-Nets
        ("imagenet-simple-diffusion-unet-256", 1_220_313_731),
        ("imagenet-simple-diffusion-unet-512", 1_251_935_024),
        ("imagenet-simple-diffusion-uvit-256", 2_016_535_564),
    ],
)
def test_the_parameters_of_the_imagenet_recipes(name: str, count: int) -> None:
    recipe = load_training_recipe(name)
    prompts = tuple(entry.prompt for entry in load_classes(recipe.classes))
    network = planned_network(trainable(recipe.generator).family, recipe, prompts)
    assert sum(p.numel() for p in network.parameters()) == count


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"network": {"blocks": [1]}}, "as many levels"),
        ({"stage": {"prediction": "x0"}}, "predicts v"),
        ({"training": {"multiscale": 3}}, "does not double"),
    ],
)
def test_a_recipe_that_cannot_be_is_refused(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        tiny_recipe("unet", **changes)


@pytest.mark.parametrize(
    ("change", "words"),
    [({"heads": 3}, "3 heads do not divide"), ({"wavelet": 5}, "do not halve 6 times")],
)
def test_a_shape_that_cannot_be_is_refused_before_anything_is_taken(
    change: dict[str, Any], words: str
) -> None:
    recipe = tiny_recipe("unet", network=change)
    with pytest.raises(UserError, match=rf"training recipe tiny, \[network\]: .*{words}"):
        trainable("simple-diffusion").memory(recipe, 1)
    assert config_of(recipe, PROMPTS, 3).classes == (*PROMPTS, "")
